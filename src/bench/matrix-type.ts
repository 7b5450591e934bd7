/** Kinds of numbers whose products are measured. */
export const MATRIX_TYPES = ['float32', 'float16', 'int8'] as const;
export type MatrixType = (typeof MATRIX_TYPES)[number];

/** Where TurboDiffusion keeps the projection of sparse attention's linear branch, below `blocks.I.self_attn`. */
export const LINEAR_BRANCH = 'attn_op.local_attn.proj_l';

/**
 * What is used of ONNX Runtime's C interface: for each function its slot in the table OrtApi and its parameters. Releases add to the end of
 * that table and change nothing before it (onnxruntime_c_api.h), so these slots are good from API_VERSION on.
 */

/** That of release 1.18, which has all that is used here. */
export const API_VERSION = 18;

const [POINTER, OUT, TEXT, NUMBER, SIZE] = ['void *', '_Out_ void **', 'str', 'int', 'size_t'] as const;
const [SHAPE, STRINGS, POINTERS, SIZES, OUT_SIZE, OUT_NUMBER] = ['int64_t *', 'str *', 'void **', 'size_t *', '_Out_ size_t *', '_Out_ int *'] as const;

/** Parameters of functions that return an OrtStatus, null when all went well. */
export const STATUS_FUNCTIONS = {
	CreateEnv: [3, NUMBER, TEXT, OUT],
	CreateSessionFromArray: [8, POINTER, POINTER, SIZE, POINTER, OUT],
	CreateSessionOptions: [10, OUT],
	SetSessionExecutionMode: [13, POINTER, NUMBER],
	SetSessionLogSeverityLevel: [22, POINTER, NUMBER],
	SetSessionGraphOptimizationLevel: [23, POINTER, NUMBER],
	SetIntraOpNumThreads: [24, POINTER, NUMBER],
	SetInterOpNumThreads: [25, POINTER, NUMBER],
	CreateRunOptions: [39, OUT],
	RunOptionsSetRunLogSeverityLevel: [41, POINTER, NUMBER],
	RunOptionsSetTerminate: [46, POINTER],
	CreateTensorWithDataAsOrtValue: [49, POINTER, POINTER, SIZE, SHAPE, SIZE, NUMBER, OUT],
	GetTensorMutableData: [51, POINTER, OUT],
	GetTensorElementType: [60, POINTER, OUT_NUMBER],
	GetDimensionsCount: [61, POINTER, OUT_SIZE],
	GetDimensions: [62, POINTER, SHAPE, SIZE],
	GetTensorTypeAndShape: [65, POINTER, OUT],
	CreateMemoryInfo: [68, TEXT, NUMBER, NUMBER, NUMBER, OUT],
	AllocatorFree: [76, POINTER, POINTER],
	GetAllocatorWithDefaultOptions: [78, OUT],
	AddSessionConfigEntry: [130, POINTER, TEXT, TEXT],
	RunWithBinding: [133, POINTER, POINTER, POINTER],
	CreateIoBinding: [134, POINTER, OUT],
	BindInput: [136, POINTER, TEXT, POINTER],
	BindOutput: [137, POINTER, TEXT, POINTER],
	BindOutputToDevice: [138, POINTER, TEXT, POINTER],
	GetBoundOutputValues: [140, POINTER, POINTER, OUT, OUT_SIZE],
	AddRunConfigEntry: [165, POINTER, TEXT, TEXT],
	SessionOptionsAppendExecutionProvider_CUDA_V2: [204, POINTER, POINTER],
	CreateCUDAProviderOptions: [205, OUT],
	UpdateCUDAProviderOptions: [206, POINTER, STRINGS, STRINGS, SIZE],
	RegisterCustomOpsLibrary_V2: [228, POINTER, TEXT],
	UpdateCUDAProviderOptionsWithValue: [263, POINTER, TEXT, POINTER],
	AddExternalInitializersFromFilesInMemory: [279, POINTER, STRINGS, POINTERS, SIZES, SIZE],
} as const satisfies { readonly [name: string]: readonly [slot: number, ...parameters: string[]] };

/** Functions that give something back, by slot; each takes it and returns nothing. */
export const RELEASE_FUNCTIONS = {
	Env: 92, Status: 93, MemoryInfo: 94, Session: 95, Value: 96, RunOptions: 97, TensorTypeAndShapeInfo: 99, SessionOptions: 100, IoBinding: 135, CUDAProviderOptions: 208,
} as const;

export const GET_ERROR_CODE = 1;
export const GET_ERROR_MESSAGE = 2;

export type StatusFunction = keyof typeof STATUS_FUNCTIONS;
export type Handle = keyof typeof RELEASE_FUNCTIONS;

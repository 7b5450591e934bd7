/**
 * What the operators (operators.cpp) need of ONNX Runtime's C interface, written down by hand: the table OrtApi by slot, as src/engine/c-api/functions.ts
 * has it, and the layout of OrtCustomOp. Releases add to the end of both and change nothing before it, so this is good from API_VERSION on.
 */
#pragma once
#include <cstddef>
#include <cstdint>

namespace ort {

/** That of release 1.18. */
constexpr uint32_t API_VERSION = 18;

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
/** A table of functions. */
typedef const void *const *Api;

struct ApiBase {
	Api (*getApi)(uint32_t version);
	const char *(*getVersionString)();
};

/** OrtErrorCode. */
enum { FAIL = 1, INVALID_ARGUMENT = 2, NOT_IMPLEMENTED = 9, EP_FAIL = 11 };
/** ONNXTensorElementDataType. */
enum ElementType { FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, FLOAT16 = 10, BFLOAT16 = 16 };
/** OrtCustomOpInputOutputCharacteristic. */
enum { REQUIRED = 0, OPTIONAL = 1 };

struct CustomOp {
	uint32_t version;
	void *(*createKernel)(const CustomOp *, Api, const KernelInfo *);
	const char *(*getName)(const CustomOp *);
	/** Null for the processor's. */
	const char *(*getExecutionProviderType)(const CustomOp *);
	ElementType (*getInputType)(const CustomOp *, size_t index);
	size_t (*getInputTypeCount)(const CustomOp *);
	ElementType (*getOutputType)(const CustomOp *, size_t index);
	size_t (*getOutputTypeCount)(const CustomOp *);
	void (*kernelCompute)(void *kernel, KernelContext *);
	void (*kernelDestroy)(void *kernel);
	int (*getInputCharacteristic)(const CustomOp *, size_t index);
	int (*getOutputCharacteristic)(const CustomOp *, size_t index);
	int (*getInputMemoryType)(const CustomOp *, size_t index);
	int (*getVariadicInputMinArity)(const CustomOp *);
	int (*getVariadicInputHomogeneity)(const CustomOp *);
	int (*getVariadicOutputMinArity)(const CustomOp *);
	int (*getVariadicOutputHomogeneity)(const CustomOp *);
	/** Used instead of `createKernel` and `kernelCompute` where they are there. */
	Status *(*createKernelV2)(const CustomOp *, Api, const KernelInfo *, void **kernel);
	Status *(*kernelComputeV2)(void *kernel, KernelContext *);
	Status *(*inferOutputShape)(const CustomOp *, void *context);
	int (*getStartVersion)(const CustomOp *);
	int (*getEndVersion)(const CustomOp *);
	size_t (*getMayInplace)(int **inputs, int **outputs);
	void (*releaseMayInplace)(int *inputs, int *outputs);
	size_t (*getAliasMap)(int **inputs, int **outputs);
	void (*releaseAliasMap)(int *inputs, int *outputs);
};
static_assert(sizeof(void *) == 8, "64 bits");
static_assert(offsetof(CustomOp, getName) == 2 * 8 && offsetof(CustomOp, kernelDestroy) == 9 * 8 && offsetof(CustomOp, createKernelV2) == 17 * 8 && sizeof(CustomOp) == 26 * 8, "the layout of OrtCustomOp");

/** A function of the table by its slot. */
template <class Function> Function at(Api api, int slot) { return reinterpret_cast<Function>(const_cast<void *>(api[slot])); }

inline Status *createStatus(Api api, int code, const char *text) { return at<Status *(*)(int, const char *)>(api, 0)(code, text); }
inline Status *createCustomOpDomain(Api api, const char *name, Domain **out) { return at<Status *(*)(const char *, Domain **)>(api, 26)(name, out); }
inline Status *addToDomain(Api api, Domain *domain, const CustomOp *op) { return at<Status *(*)(Domain *, const CustomOp *)>(api, 27)(domain, op); }
inline Status *addCustomOpDomain(Api api, SessionOptions *options, Domain *domain) { return at<Status *(*)(SessionOptions *, Domain *)>(api, 28)(options, domain); }
inline Status *getTensorMutableData(Api api, Value *value, void **out) { return at<Status *(*)(Value *, void **)>(api, 51)(value, out); }
inline Status *getTensorElementType(Api api, const TensorInfo *info, ElementType *out) { return at<Status *(*)(const TensorInfo *, ElementType *)>(api, 60)(info, out); }
inline Status *getDimensionsCount(Api api, const TensorInfo *info, size_t *out) { return at<Status *(*)(const TensorInfo *, size_t *)>(api, 61)(info, out); }
inline Status *getDimensions(Api api, const TensorInfo *info, int64_t *to, size_t count) { return at<Status *(*)(const TensorInfo *, int64_t *, size_t)>(api, 62)(info, to, count); }
inline Status *getTensorTypeAndShape(Api api, const Value *value, TensorInfo **out) { return at<Status *(*)(const Value *, TensorInfo **)>(api, 65)(value, out); }
inline Status *getFloatAttribute(Api api, const KernelInfo *info, const char *name, float *out) { return at<Status *(*)(const KernelInfo *, const char *, float *)>(api, 85)(info, name, out); }
inline Status *getIntAttribute(Api api, const KernelInfo *info, const char *name, int64_t *out) { return at<Status *(*)(const KernelInfo *, const char *, int64_t *)>(api, 86)(info, name, out); }
inline Status *getInputCount(Api api, const KernelContext *context, size_t *out) { return at<Status *(*)(const KernelContext *, size_t *)>(api, 88)(context, out); }
inline Status *getOutputCount(Api api, const KernelContext *context, size_t *out) { return at<Status *(*)(const KernelContext *, size_t *)>(api, 89)(context, out); }
inline Status *getInput(Api api, const KernelContext *context, size_t index, const Value **out) { return at<Status *(*)(const KernelContext *, size_t, const Value **)>(api, 90)(context, index, out); }
inline Status *getOutput(Api api, KernelContext *context, size_t index, const int64_t *dims, size_t count, Value **out) {
	return at<Status *(*)(KernelContext *, size_t, const int64_t *, size_t, Value **)>(api, 91)(context, index, dims, count, out);
}
inline void releaseTensorInfo(Api api, TensorInfo *info) { at<void (*)(TensorInfo *)>(api, 99)(info); }
inline Status *getComputeStream(Api api, const KernelContext *context, void **out) { return at<Status *(*)(const KernelContext *, void **)>(api, 193)(context, out); }

} // namespace ort

/**
 * The kernels as operators of ONNX Runtime, in the domain `turbocast`. Compiled by nvcc they are the CUDA provider's and run on its stream; compiled by a C++
 * compiler they are the CPU provider's, and the same kernels run in the emulation, slowly: for proofs.
 *
 * T is float16 or bfloat16, the same in all places of a node; `workspace` is an output that nobody reads: its memory is the runtime's, of the provider, planned
 * and reused like that of all results.
 *
 *   W8A8Quantize(x T [rows, columns]) -> values int8 [rows, columns], scales float [ceil(rows / 128), ceil(columns / 128)]
 *   W8A8Linear(values, scales, weight int8 [outputs, inputs], weight_scales float [ceil(outputs / 128), ceil(inputs / 128)], bias T [outputs]) -> y T [rows, outputs]
 *   SparseLinearAttention(q, k, v T [tokens, heads * d], proj_weight? float [d, d], proj_bias? float [d]) -> out T [tokens, heads * d], workspace,
 *     chosen? int32 [heads, query blocks, kept]; attributes heads, block_queries, block_keys, kept
 *   Int8Attention(q T [queries, heads * d], k, v T [keys, heads * d]) -> out T [queries, heads * d], workspace; attribute heads
 *   NormModulate(x float [tables, rows, dim], scale, shift float [tables, 1, dim]) -> out float16 [tables * rows, dim]; attribute epsilon
 */
#include "onnxruntime.h"
#include "status.h"
#include <climits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace turbocast {
namespace {

#ifdef __CUDACC__
constexpr const char *PROVIDER = "CUDAExecutionProvider";
#else
constexpr const char *PROVIDER = "CPUExecutionProvider";
/** The emulation has one set of fibres. */
std::mutex emulationMutex;
#endif

/** Becomes an OrtStatus at the border to the library; nothing is thrown across it. */
struct Failure {
	int code;
	std::string text;
};

/** The library's own report, to be handed back as it is. */
struct Reported {
	ort::Status *status;
};

void check(ort::Status *status) {
	if (status != nullptr) {
		throw Reported{status};
	}
}

void checkKernel(const char *name, int status) {
	if (status == TC_OK) {
		return;
	}
	const int code = status == TC_LAUNCH_FAILED ? ort::EP_FAIL : status == TC_UNSUPPORTED ? ort::NOT_IMPLEMENTED : ort::INVALID_ARGUMENT;
	throw Failure{code, std::string(name) + ": " + tc_status_text(status) + (status == TC_LAUNCH_FAILED ? " The driver's code is " + std::to_string(tc_launch_error()) + "." : "")};
}

typedef std::vector<int64_t> Dims;

std::string textOf(const Dims &dims) {
	std::string text = "[";
	for (const int64_t size : dims) {
		text += (text.size() > 1 ? ", " : "") + std::to_string(size);
	}
	return text + "]";
}

struct Tensor {
	void *data = nullptr;
	ort::ElementType type = ort::FLOAT;
	Dims dims;

	int type16() const { return type == ort::FLOAT16 ? TC_FLOAT16 : TC_BFLOAT16; }
	template <class T> T *as() const { return static_cast<T *>(data); }
};

/** One run of a node. */
class Run {
public:
	Run(const char *name, ort::Api api, ort::KernelContext *context) : name_(name), api_(api), context_(context) {}

	/** Without data where an optional one was left out. */
	Tensor input(size_t index) const {
		Tensor tensor;
		size_t count = 0;
		check(ort::getInputCount(api_, context_, &count));
		const ort::Value *value = nullptr;
		if (index < count) {
			check(ort::getInput(api_, context_, index, &value));
		}
		if (value == nullptr) {
			return tensor;
		}
		ort::TensorInfo *info = nullptr;
		check(ort::getTensorTypeAndShape(api_, value, &info));
		const std::unique_ptr<ort::TensorInfo, Release> held(info, Release{api_});
		size_t rank = 0;
		check(ort::getDimensionsCount(api_, info, &rank));
		tensor.dims.resize(rank);
		check(ort::getDimensions(api_, info, tensor.dims.data(), rank));
		check(ort::getTensorElementType(api_, info, &tensor.type));
		check(ort::getTensorMutableData(api_, const_cast<ort::Value *>(value), &tensor.data));
		return tensor;
	}

	/** Null where nobody asked for an optional one. */
	void *output(size_t index, const Dims &dims) const {
		size_t count = 0;
		check(ort::getOutputCount(api_, context_, &count));
		ort::Value *value = nullptr;
		if (index < count) {
			check(ort::getOutput(api_, context_, index, dims.data(), dims.size(), &value));
		}
		void *data = nullptr;
		if (value != nullptr) {
			check(ort::getTensorMutableData(api_, value, &data));
		}
		return data;
	}

	/** Of the provider; null for the processor. */
	void *stream() const {
		void *stream = nullptr;
#ifdef __CUDACC__
		check(ort::getComputeStream(api_, context_, &stream));
#endif
		return stream;
	}

	/** Sizes as ints that the kernels take; `rank` of them. */
	std::vector<int> sizes(const Tensor &tensor, const char *what, size_t rank) const {
		expect(tensor.dims.size() == rank, what, tensor.dims);
		std::vector<int> sizes;
		for (const int64_t size : tensor.dims) {
			expect(size >= 0 && size <= INT_MAX, what, tensor.dims);
			sizes.push_back(int(size));
		}
		return sizes;
	}
	void expect(bool isWell, const char *what, const Dims &dims) const {
		if (!isWell) {
			throw Failure{ort::INVALID_ARGUMENT, std::string(name_) + ": " + what + " cannot be " + textOf(dims) + "."};
		}
	}
	void must(int status) const { checkKernel(name_, status); }

private:
	struct Release {
		ort::Api api;
		void operator()(ort::TensorInfo *info) const { ort::releaseTensorInfo(api, info); }
	};

	const char *name_;
	ort::Api api_;
	ort::KernelContext *context_;
};

/** Attributes of a node. */
class Attributes {
public:
	Attributes(const char *name, ort::Api api, const ort::KernelInfo *info) : name_(name), api_(api), info_(info) {}
	int whole(const char *attribute) const {
		int64_t value = 0;
		check(ort::getIntAttribute(api_, info_, attribute, &value));
		if (value < 1 || value > INT_MAX) {
			throw Failure{ort::INVALID_ARGUMENT, std::string(name_) + ": " + attribute + " cannot be " + std::to_string(value) + "."};
		}
		return int(value);
	}
	float number(const char *attribute) const {
		float value = 0;
		check(ort::getFloatAttribute(api_, info_, attribute, &value));
		return value;
	}

private:
	const char *name_;
	ort::Api api_;
	const ort::KernelInfo *info_;
};

/** A constant may lie where the file of weights has it: the kernels want 16 bytes. Memory of a card is always aligned. */
class Aligned {
public:
	Aligned(const void *data, size_t bytes) : data_(data) {
		(void)bytes;
#ifndef __CUDACC__
		if (data != nullptr && !isAligned(data)) {
			copy_.reset(new Piece[bytes / sizeof(Piece) + 1]);
			memcpy(copy_.get(), data, bytes);
			data_ = copy_.get();
		}
#endif
	}
	template <class T> const T *as() const { return static_cast<const T *>(data_); }

private:
	struct alignas(16) Piece {
		unsigned char bytes[16];
	};
	const void *data_;
	std::unique_ptr<Piece[]> copy_;
};

/** A node of a loaded graph. */
class Node {
public:
	virtual ~Node() {}
	virtual void compute(const Run &run) const = 0;
};

class Quantize : public Node {
public:
	explicit Quantize(const Attributes &) {}
	void compute(const Run &run) const override {
		const Tensor x = run.input(0);
		const std::vector<int> size = run.sizes(x, "x", 2);
		int8_t *const values = static_cast<int8_t *>(run.output(0, x.dims));
		float *const scales = static_cast<float *>(run.output(1, {ceilDivide(size[0], 128), ceilDivide(size[1], 128)}));
		run.must(tc_w8a8_quantize(x.type16(), x.data, size[0], size[1], values, scales, run.stream()));
	}
};

class Linear : public Node {
public:
	explicit Linear(const Attributes &) {}
	void compute(const Run &run) const override {
		const Tensor x = run.input(0), xScales = run.input(1), weight = run.input(2), scales = run.input(3), bias = run.input(4);
		const std::vector<int> size = run.sizes(x, "values", 2), weightSize = run.sizes(weight, "weight", 2);
		const int rows = size[0], inputs = size[1], outputs = weightSize[0];
		run.expect(weightSize[1] == inputs, "weight", weight.dims);
		run.expect(xScales.dims == Dims{ceilDivide(rows, 128), ceilDivide(inputs, 128)}, "scales", xScales.dims);
		run.expect(scales.dims == Dims{ceilDivide(outputs, 128), ceilDivide(inputs, 128)}, "weight_scales", scales.dims);
		run.expect(bias.dims == Dims{outputs}, "bias", bias.dims);
		void *const y = run.output(0, {rows, outputs});
		const Aligned w(weight.data, size_t(outputs) * inputs), b(bias.data, size_t(outputs) * 2);
		run.must(tc_w8a8_linear(bias.type16(), x.as<int8_t>(), xScales.as<float>(), w.as<int8_t>(), scales.as<float>(), b.as<void>(), y, rows, outputs, inputs, run.stream()));
	}
};

/** q, k and v [tokens, heads * d] as the kernels see them. */
int headDimOf(const Run &run, const Tensor &tensor, const char *what, int heads) {
	const int width = run.sizes(tensor, what, 2)[1];
	run.expect(width % heads == 0, what, tensor.dims);
	return width / heads;
}

tc_strides stridesOf(int heads, int headDim) { return {headDim, int64_t(heads) * headDim}; }

class SparseLinear : public Node {
public:
	explicit SparseLinear(const Attributes &a) : heads_(a.whole("heads")), blockQueries_(a.whole("block_queries")), blockKeys_(a.whole("block_keys")), kept_(a.whole("kept")) {}
	void compute(const Run &run) const override {
		const Tensor q = run.input(0), k = run.input(1), v = run.input(2), weight = run.input(3), bias = run.input(4);
		const int d = headDimOf(run, q, "q", heads_), tokens = int(q.dims[0]), blocks = ceilDivide(tokens, blockKeys_);
		run.expect(k.dims == q.dims, "k", k.dims);
		run.expect(v.dims == q.dims, "v", v.dims);
		run.expect(weight.data == nullptr || weight.dims == Dims{d, d}, "proj_weight", weight.dims);
		run.expect(bias.data == nullptr || bias.dims == Dims{d}, "proj_bias", bias.dims);
		if (kept_ > blocks) {
			throw Failure{ort::INVALID_ARGUMENT, "SparseLinearAttention: " + std::to_string(kept_) + " of " + std::to_string(blocks) + " blocks cannot be kept."};
		}
		const tc_strides strides = stridesOf(heads_, d);
		// A share that the kernel's rounding down makes just these of.
		const double ratio = kept_ == blocks ? 1 : (kept_ + 0.5) / blocks;
		tc_sla call = {q.type16(), heads_, tokens, d, blockQueries_, blockKeys_, ratio, strides, strides, strides, strides, q.data, k.data, v.data, weight.as<float>(), bias.as<float>(), nullptr, nullptr};
		const size_t bytes = tc_sla_workspace(&call);
		call.out = run.output(0, q.dims);
		void *const workspace = run.output(1, {int64_t(bytes)});
		call.chosen = static_cast<int32_t *>(run.output(2, {heads_, ceilDivide(tokens, blockQueries_), kept_}));
		run.must(tc_sla_run(&call, workspace, bytes, run.stream()));
	}

private:
	int heads_, blockQueries_, blockKeys_, kept_;
};

class Int8 : public Node {
public:
	explicit Int8(const Attributes &a) : heads_(a.whole("heads")) {}
	void compute(const Run &run) const override {
		const Tensor q = run.input(0), k = run.input(1), v = run.input(2);
		const int d = headDimOf(run, q, "q", heads_);
		run.expect(headDimOf(run, k, "k", heads_) == d, "k", k.dims);
		run.expect(v.dims == k.dims, "v", v.dims);
		const tc_strides strides = stridesOf(heads_, d);
		tc_int8_attention call = {q.type16(), heads_, int(q.dims[0]), int(k.dims[0]), d, strides, strides, strides, strides, q.data, k.data, v.data, nullptr};
		const size_t bytes = tc_int8_attention_workspace(&call);
		call.out = run.output(0, q.dims);
		run.must(tc_int8_attention_run(&call, run.output(1, {int64_t(bytes)}), bytes, run.stream()));
	}

private:
	int heads_;
};

class NormModulate : public Node {
public:
	explicit NormModulate(const Attributes &a) : epsilon_(a.number("epsilon")) {}
	void compute(const Run &run) const override {
		const Tensor x = run.input(0), scale = run.input(1), shift = run.input(2);
		const std::vector<int> size = run.sizes(x, "x", 3);
		const Dims table = {size[0], 1, size[2]};
		run.expect(int64_t(size[0]) * size[1] <= INT_MAX, "x", x.dims);
		run.expect(scale.dims == table, "scale", scale.dims);
		run.expect(shift.dims == table, "shift", shift.dims);
		const int rows = size[0] * size[1];
		void *const out = run.output(0, {rows, size[2]});
		run.must(tc_norm_modulate(TC_FLOAT32, TC_FLOAT16, x.data, scale.as<float>(), shift.as<float>(), out, rows, size[2], size[1], epsilon_, run.stream()));
	}

private:
	float epsilon_;
};

template <class Made> Node *make(const Attributes &attributes) { return new Made(attributes); }

struct Place {
	ort::ElementType type;
	int characteristic = ort::REQUIRED;
	Place(ort::ElementType type_, int characteristic_ = ort::REQUIRED) : type(type_), characteristic(characteristic_) {}
};

/** An operator in one choice of types. The library looks at the first part alone. */
struct Operator : ort::CustomOp {
	const char *name;
	std::vector<Place> inputs, outputs;
	Node *(*make)(const Attributes &);
};

/** What the library keeps of a node. */
struct Loaded {
	const char *name;
	ort::Api api;
	std::unique_ptr<Node> node;
};

const Operator *of(const ort::CustomOp *op) { return static_cast<const Operator *>(op); }

/** What the body throws, as a status. */
template <class Body> ort::Status *guarded(ort::Api api, Body body) {
	try {
		body();
		return nullptr;
	} catch (const Reported &reported) {
		return reported.status;
	} catch (const Failure &failure) {
		return ort::createStatus(api, failure.code, failure.text.c_str());
	} catch (const std::exception &error) {
		return ort::createStatus(api, ort::FAIL, error.what());
	}
}

Operator describe(const char *name, std::vector<Place> inputs, std::vector<Place> outputs, Node *(*make)(const Attributes &)) {
	Operator op;
	static_cast<ort::CustomOp &>(op) = ort::CustomOp{};
	op.version = ort::API_VERSION;
	op.name = name;
	op.inputs = std::move(inputs);
	op.outputs = std::move(outputs);
	op.make = make;
	op.getName = [](const ort::CustomOp *self) { return of(self)->name; };
	op.getExecutionProviderType = [](const ort::CustomOp *) { return PROVIDER; };
	op.getInputType = [](const ort::CustomOp *self, size_t index) { return of(self)->inputs[index].type; };
	op.getInputTypeCount = [](const ort::CustomOp *self) { return of(self)->inputs.size(); };
	op.getOutputType = [](const ort::CustomOp *self, size_t index) { return of(self)->outputs[index].type; };
	op.getOutputTypeCount = [](const ort::CustomOp *self) { return of(self)->outputs.size(); };
	op.getInputCharacteristic = [](const ort::CustomOp *self, size_t index) { return of(self)->inputs[index].characteristic; };
	op.getOutputCharacteristic = [](const ort::CustomOp *self, size_t index) { return of(self)->outputs[index].characteristic; };
	op.getInputMemoryType = [](const ort::CustomOp *, size_t) { return 0; };
	op.getVariadicInputMinArity = op.getVariadicInputHomogeneity = op.getVariadicOutputMinArity = op.getVariadicOutputHomogeneity = [](const ort::CustomOp *) { return 1; };
	op.getStartVersion = [](const ort::CustomOp *) { return 1; };
	op.getEndVersion = [](const ort::CustomOp *) { return INT_MAX; };
	op.getMayInplace = op.getAliasMap = [](int **, int **) { return size_t(0); };
	op.releaseMayInplace = op.releaseAliasMap = [](int *, int *) {};
	op.createKernelV2 = [](const ort::CustomOp *self, ort::Api api, const ort::KernelInfo *info, void **kernel) {
		return guarded(api, [&] { *kernel = new Loaded{of(self)->name, api, std::unique_ptr<Node>(of(self)->make(Attributes(of(self)->name, api, info)))}; });
	};
	op.kernelComputeV2 = [](void *kernel, ort::KernelContext *context) {
		const Loaded &loaded = *static_cast<const Loaded *>(kernel);
		return guarded(loaded.api, [&] {
#ifndef __CUDACC__
			const std::lock_guard<std::mutex> alone(emulationMutex);
#endif
			loaded.node->compute(Run(loaded.name, loaded.api, context));
		});
	};
	op.kernelDestroy = [](void *kernel) { delete static_cast<Loaded *>(kernel); };
	return op;
}

std::vector<Operator> allOperators() {
	std::vector<Operator> all;
	for (const ort::ElementType t : {ort::FLOAT16, ort::BFLOAT16}) {
		const Place optional(ort::FLOAT, ort::OPTIONAL);
		all.push_back(describe("W8A8Quantize", {t}, {ort::INT8, ort::FLOAT}, make<Quantize>));
		all.push_back(describe("W8A8Linear", {ort::INT8, ort::FLOAT, ort::INT8, ort::FLOAT, t}, {t}, make<Linear>));
		all.push_back(describe("SparseLinearAttention", {t, t, t, optional, optional}, {t, ort::UINT8, {ort::INT32, ort::OPTIONAL}}, make<SparseLinear>));
		all.push_back(describe("Int8Attention", {t, t, t}, {t, ort::UINT8}, make<Int8>));
	}
	all.push_back(describe("NormModulate", {ort::FLOAT, ort::FLOAT, ort::FLOAT}, {ort::FLOAT16}, make<NormModulate>));
	return all;
}

/** For as long as the library is loaded: sessions point to them. */
ort::Domain *domainOf(ort::Api api) {
	static const std::vector<Operator> operators = allOperators();
	static ort::Domain *const domain = [api] {
		ort::Domain *made = nullptr;
		check(ort::createCustomOpDomain(api, "turbocast", &made));
		for (const Operator &op : operators) {
			check(ort::addToDomain(api, made, &op));
		}
		return made;
	}();
	return domain;
}

} // namespace
} // namespace turbocast

extern "C" {

const char *tc_provider(void) { return turbocast::PROVIDER; }

/** The entry that ONNX Runtime looks for (RegisterCustomOpsLibrary_V2). */
ort::Status *RegisterCustomOps(ort::SessionOptions *options, const ort::ApiBase *base) {
	const ort::Api api = base->getApi(ort::API_VERSION);
	if (api == nullptr) {
		return ort::createStatus(base->getApi(1), ort::NOT_IMPLEMENTED, "This release of ONNX Runtime is older than what turbocast's kernels need.");
	}
	return turbocast::guarded(api, [&] { turbocast::check(ort::addCustomOpDomain(api, options, turbocast::domainOf(api))); });
}
}

#include "status.h"

namespace turbocast {

namespace {
thread_local int lastError = 0;
}

int launched(int driverError) {
	if (driverError == 0) {
		return TC_OK;
	}
	lastError = driverError;
	return TC_LAUNCH_FAILED;
}

} // namespace turbocast

extern "C" {

int tc_version(void) { return TC_VERSION; }

int tc_launch_error(void) { return turbocast::lastError; }

const char *tc_status_text(int status) {
	switch (status) {
	case TC_OK: return "Queued.";
	case TC_BAD_ARGUMENT: return "A pointer is null, a size is not positive or a stride is too small.";
	case TC_UNSUPPORTED: return "No kernel takes these sizes or this type.";
	case TC_MISALIGNED: return "A pointer or a row is not aligned to 16 bytes.";
	case TC_WORKSPACE_TOO_SMALL: return "The workspace is smaller than asked for.";
	case TC_LAUNCH_FAILED: return "The driver refused a kernel.";
	default: return "This is no status of the library.";
	}
}

#ifdef __CUDACC__

int tc_timer_start(void **timer, void *stream) {
	if (timer == nullptr) {
		return TC_BAD_ARGUMENT;
	}
	cudaEvent_t event;
	TC_CHECK(turbocast::launched(int(cudaEventCreate(&event))));
	*timer = event;
	const int status = turbocast::launched(int(cudaEventRecord(event, static_cast<cudaStream_t>(stream))));
	if (status != TC_OK) {
		cudaEventDestroy(event);
	}
	return status;
}

int tc_timer_stop(void *timer, void *stream, float *milliseconds) {
	if (timer == nullptr || milliseconds == nullptr) {
		return TC_BAD_ARGUMENT;
	}
	cudaEvent_t end;
	const cudaEvent_t start = static_cast<cudaEvent_t>(timer);
	int error = int(cudaEventCreate(&end));
	if (error == 0) {
		error = int(cudaEventRecord(end, static_cast<cudaStream_t>(stream)));
		error = error != 0 ? error : int(cudaEventSynchronize(end));
		error = error != 0 ? error : int(cudaEventElapsedTime(milliseconds, start, end));
		cudaEventDestroy(end);
	}
	cudaEventDestroy(start);
	return turbocast::launched(error);
}

#else

int tc_timer_start(void **, void *) { return TC_UNSUPPORTED; }
int tc_timer_stop(void *, void *, float *) { return TC_UNSUPPORTED; }

#endif
}

// Package worker runs one ONNX model in a process of its own and hands tensors
// to it through shared memory.
//
// Vocabulary: the runner is the process that calls Start; the worker is its
// child, which runs Main, loads ONNX Runtime with dlopen (purego, no C
// compiler) and answers one inference at a time. The slot is a memfd both
// sides map: inputs are written there by the runner, outputs by the worker. The
// socket (descriptor 3 of the worker) carries one small frame per request and
// answer; the control pipe (descriptor 4) carries ids of requests to abandon.
//
// Why a process: ONNX Runtime does not give memory back when a model is
// replaced, and a crash, a hang or an allocation failure in a kernel must cost
// one model, not the box. The worker ends when its end of the control pipe
// reads end-of-file, also in the middle of an inference; this is preferred to
// PR_SET_PDEATHSIG, which fires when the thread that forked ends.
//
// The one rule a caller can break: call Close on every Worker that Start
// returned, also after Done; it frees the slot and the descriptors.
package worker

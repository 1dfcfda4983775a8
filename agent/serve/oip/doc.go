// Package oip holds the messages and the service of the Open Inference
// Protocol over gRPC, inference.GRPCInferenceService, generated from
// inference.proto.
//
// Package, service, message and field names and numbers are those of the
// protocol (KServe's open-inference-protocol) and of NVIDIA Triton's extensions
// for statistics, configuration and repository, so that clients of either
// work. The text of the file is our own. ModelInfer has large tensors; package
// serve reads and writes its messages itself, and uses the generated types for
// all others and in tests.
//
// The one rule a caller can break: change inference.proto, never the generated
// files, and generate again with the commands below.
package oip

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative inference.proto

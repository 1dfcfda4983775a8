package serve

import (
	"context"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/models"
)

// grpcAPI answers all calls but those that carry tensors.
type grpcAPI struct {
	oip.UnimplementedGRPCInferenceServiceServer
	s *Server
}

// streamed wraps a ModelInferResponse as the field of that name of a
// ModelStreamInferResponse.
func streamed(reply mem.BufferSlice) mem.BufferSlice {
	const inferResponse = 2
	head := protowire.AppendVarint(protowire.AppendTag(nil, inferResponse, protowire.BytesType), uint64(reply.Len()))
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, reply...)
}

func (a *grpcAPI) ServerLive(context.Context, *oip.ServerLiveRequest) (*oip.ServerLiveResponse, error) {
	return &oip.ServerLiveResponse{Live: true}, nil
}

func (a *grpcAPI) ServerReady(context.Context, *oip.ServerReadyRequest) (*oip.ServerReadyResponse, error) {
	return &oip.ServerReadyResponse{Ready: a.s.ready()}, nil
}

func (a *grpcAPI) ServerMetadata(context.Context, *oip.ServerMetadataRequest) (*oip.ServerMetadataResponse, error) {
	return &oip.ServerMetadataResponse{Name: serverName, Version: a.s.opts.Version, Extensions: extensions()}, nil
}

// ModelReady is false for a model that is not there, as in Triton.
func (a *grpcAPI) ModelReady(_ context.Context, r *oip.ModelReadyRequest) (*oip.ModelReadyResponse, error) {
	v, err := a.s.table.Load().find(r.Name, r.Version)
	if err != nil {
		return &oip.ModelReadyResponse{}, nil
	}
	ready, _ := v.ready()
	return &oip.ModelReadyResponse{Ready: ready}, nil
}

func (a *grpcAPI) ModelMetadata(_ context.Context, r *oip.ModelMetadataRequest) (*oip.ModelMetadataResponse, error) {
	meta, err := a.s.metadata(r.Name, r.Version)
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.ModelMetadataResponse{
		Name: meta.Name, Versions: meta.Versions, Platform: meta.Platform,
		Inputs: specs(meta.Inputs), Outputs: specs(meta.Outputs),
	}, nil
}

func specs(from []models.TensorSpec) []*oip.ModelMetadataResponse_TensorMetadata {
	var to []*oip.ModelMetadataResponse_TensorMetadata
	for _, t := range from {
		to = append(to, &oip.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: string(t.DType), Shape: t.Shape})
	}
	return to
}

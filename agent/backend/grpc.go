package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/models"
)

func dialer() *net.Dialer { return &net.Dialer{Timeout: dialTimeout} }

func dialGRPC(u *url.URL, secure *tls.Config) (*grpc.ClientConn, error) {
	var creds credentials.TransportCredentials = insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		creds = credentials.NewTLS(secure)
	}
	// passthrough: the address as it is, not what DNS' service records say.
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry(), grpc.WithUserAgent("edgeherd-runner"))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	return conn, nil
}

// let adds to a call what it needs to be let in.
func (c *Client) let(ctx context.Context) (context.Context, error) {
	token, err := c.endpoint.bearer()
	if err != nil {
		return ctx, err
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
	}
	return metadata.AppendToOutgoingContext(ctx, HeaderForwarded, "1"), nil
}

func (c *Client) readyGRPC(ctx context.Context) error {
	ctx, err := c.let(ctx)
	if err != nil {
		return err
	}
	r, err := oip.NewGRPCInferenceServiceClient(c.conn).ModelReady(ctx, &oip.ModelReadyRequest{Name: c.model, Version: c.version})
	if err != nil {
		return c.failure(ctx, err)
	}
	if !r.Ready {
		return &Failure{Status: http.StatusServiceUnavailable, Text: fmt.Sprintf("model %s is not ready", c.model)}
	}
	return nil
}

func (c *Client) signatureGRPC(ctx context.Context) (models.Signature, error) {
	var sig models.Signature
	ctx, err := c.let(ctx)
	if err != nil {
		return sig, err
	}
	r, err := oip.NewGRPCInferenceServiceClient(c.conn).ModelMetadata(ctx, &oip.ModelMetadataRequest{Name: c.model, Version: c.version})
	if err != nil {
		return sig, c.failure(ctx, err)
	}
	for _, side := range []struct {
		from []*oip.ModelMetadataResponse_TensorMetadata
		to   *[]models.TensorSpec
	}{{r.Inputs, &sig.Inputs}, {r.Outputs, &sig.Outputs}} {
		for _, t := range side.from {
			*side.to = append(*side.to, models.TensorSpec{Name: t.Name, DType: models.DType(t.Datatype), Shape: t.Shape})
		}
	}
	return sig, nil
}

func (c *Client) inferGRPC(ctx context.Context, m Message) (Answer, error) {
	ctx, err := c.let(ctx)
	if err != nil {
		return Answer{}, err
	}
	// A copy: gRPC may send on after the call has returned.
	if err := m.Room(m.size()); err != nil {
		return Answer{}, err
	}
	out := outbound{mem.BufferSlice{mem.SliceBuffer(slices.Concat(m.Pieces...))}}
	var in inbound
	err = c.conn.Invoke(ctx, oip.GRPCInferenceService_ModelInfer_FullMethodName, &out, &in,
		grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(int(min(m.Max, maxMessage))), grpc.MaxCallSendMsgSize(maxMessage))
	if err != nil {
		return Answer{}, c.failure(ctx, err)
	}
	if err := m.Room(int64(len(in.body))); err != nil {
		return Answer{}, err
	}
	return Answer{Body: in.body}, nil
}

// rawCodec hands messages through as bytes.
type rawCodec struct{}

type (
	outbound struct{ pieces mem.BufferSlice }
	inbound  struct{ body []byte }
)

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outbound)
	if !ok {
		return nil, fmt.Errorf("write message: %T is none of ours", v)
	}
	return out.pieces, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inbound)
	if !ok {
		return fmt.Errorf("read message: %T is none of ours", v)
	}
	in.body = data.Materialize()
	return nil
}

// failure maps an error of gRPC as our own server maps the other way.
func (c *Client) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask %s: %w", c.base.Host, context.Cause(ctx))
	}
	s, ok := status.FromError(err)
	if !ok {
		return &Failure{Err: err}
	}
	f := &Failure{Text: s.Message()}
	switch s.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		f.Status = http.StatusBadRequest
	case codes.NotFound, codes.Unimplemented:
		f.Status = http.StatusNotFound
	case codes.PermissionDenied, codes.Unauthenticated:
		f.Status = http.StatusForbidden
	case codes.ResourceExhausted:
		f.Status = http.StatusRequestEntityTooLarge
	case codes.Unavailable:
		// Nothing listens, or it is overloaded: gRPC does not tell them apart.
		f.Status, f.Err = 0, errors.New(s.Message())
	case codes.DeadlineExceeded:
		f.Status = http.StatusGatewayTimeout
	default:
		f.Status = http.StatusInternalServerError
	}
	return f
}

package serve

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/edgeherd/edgeherd/agent/worker"
)

// Answers of inference are compressed for clients that ask for it, as Triton
// does it: JSON and binary tensors as one body, HeaderLength being that of the
// JSON before compression. Nothing else is: other answers are short, and what
// language models say is handed on as it comes.

// encodeFrom is the size, in bytes, from which a body is compressed: a smaller
// one travels in one packet either way.
const encodeFrom = 1 << 10

// The codings that are known here; deflate is the format of zlib (RFC 9110, 8.4.1.2).
const (
	codeGzip    = "gzip"
	codeDeflate = "deflate"
)

// encodingFor is the coding that the values of Accept-Encoding prefer; empty: none.
func encodingFor(accept []string) string {
	if len(accept) == 0 {
		return ""
	}
	const unsaid = -1
	gz, deflate, plain, other := float64(unsaid), float64(unsaid), float64(unsaid), float64(unsaid)
	for _, line := range accept {
		for member := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(member, ";")
			q := quality(parameters)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case codeGzip, "x-gzip":
				gz = max(gz, q)
			case codeDeflate:
				deflate = max(deflate, q)
			case "identity":
				plain = q
			case "*":
				other = q
			}
		}
	}
	for _, q := range []*float64{&gz, &deflate} {
		if *q == unsaid {
			*q = other
		}
	}
	switch best := max(gz, deflate); {
	case best <= 0 || plain > best:
		return ""
	case gz >= deflate:
		return codeGzip
	}
	return codeDeflate
}

// quality is the weight of a member of Accept-Encoding, 0 for one that is none.
func quality(parameters string) float64 {
	for p := range strings.SplitSeq(parameters, ";") {
		key, text, found := strings.Cut(p, "=")
		if found && strings.EqualFold(strings.TrimSpace(key), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}

// encoderBytes is what an encoder takes beside its result: 0.8 MB, of either kind.
const encoderBytes = 1 << 20

// encoders are kept: making one takes longer than most answers do.
type encoders struct{ gzip, deflate sync.Pool }

// encoder is what both packages have.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

func (e *encoders) pool(coding string) *sync.Pool {
	if coding == codeGzip {
		return &e.gzip
	}
	return &e.deflate
}

// get returns an encoder that writes to w, by the fastest level: the processor
// is what a box has least of.
func (e *encoders) get(coding string, w io.Writer) (encoder, error) {
	if enc, ok := e.pool(coding).Get().(encoder); ok {
		enc.Reset(w)
		return enc, nil
	}
	if coding == codeGzip {
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	}
	return zlib.NewWriterLevel(w, zlib.BestSpeed)
}

// shorter takes what is written to it as long as that is less than cap(buf).
type shorter struct{ buf []byte }

var errNoGain = errors.New("compressed, the body is no shorter")

func (s *shorter) Write(p []byte) (int, error) {
	if len(s.buf)+len(p) >= cap(s.buf) {
		return 0, errNoGain
	}
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// encode writes the body of an answer, of size bytes, compressed into room. It
// reports false where that gains nothing.
func (e *encoders) encode(coding string, room []byte, answer []byte, binaries []worker.Tensor) ([]byte, bool) {
	into := &shorter{room}
	enc, err := e.get(coding, into)
	if err != nil {
		return nil, false
	}
	defer e.pool(coding).Put(enc)
	_, err = enc.Write(answer)
	for i := 0; i < len(binaries) && err == nil; i++ {
		_, err = enc.Write(binaries[i].Data)
	}
	if err == nil {
		err = enc.Close()
	}
	return into.buf, err == nil
}

package enrol

import (
	"fmt"
	"path/filepath"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Offline writes the box's request into a directory, such as a stick, for a
// controller that no network leads to. It returns the file's path.
func Offline(opts Options, token enrol.Token, dir string) (string, error) {
	opts = opts.withDefaults()
	k, request, err := opts.prepare(token)
	if err != nil {
		return "", err
	}
	file, err := enrol.RequestFile(request, token, k)
	if err != nil {
		return "", err
	}
	spki, err := publicBytes(k)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, enrol.RequestName(spki))
	return path, durable.WriteFile(path, file, 0o644)
}

// Import takes the answer that a controller gave to the request of Offline.
func Import(opts Options, token enrol.Token, file []byte) (identity.Box, error) {
	opts = opts.withDefaults()
	if err := opts.preflight(); err != nil {
		return identity.Box{}, err
	}
	answer, err := token.OpenAnswer(file, opts.WallClock())
	if err != nil {
		return identity.Box{}, err
	}
	if answer.Code != enrol.Issued {
		return identity.Box{}, refusal(answer)
	}
	k, err := openKey(nextDir(opts.Dir))
	if err != nil {
		return identity.Box{}, fmt.Errorf("open the key of this box's request: %w; was the request made on this box? make another with --offline", err)
	}
	return answer.Member.Box, opts.adopt(k, *answer.Member)
}

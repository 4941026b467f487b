// SPDX-License-Identifier: Apache-2.0

// Package render turns what an author writes into the exact bytes that are
// signed.
//
// The author's form has the fields of package spec and may be YAML or JSON.
// Three things make it shorter:
//
//   - what has a default may be left out; defaults.go holds all of them, in
//     one table, and nothing is defaulted anywhere else;
//   - an image may be a reference ("oci:DIR", "docker-archive:FILE",
//     "registry/name@sha256:…"), which a Resolver turns into digests; what the
//     image says of its process is the default of the machine's process;
//   - a kernel or initramfs may be "file:PATH".
//
// The result is deterministic, passes spec.Decode, and rendering it again
// changes nothing. The package stands apart from package spec so that no node
// ever links a YAML parser.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

// maxInput bounds the author's document: comments make it longer than the
// spec.
const maxInput = 1 << 20

// Resolver finds what references stand for.
type Resolver interface {
	// Image resolves an image reference for a platform ("linux/amd64").
	Image(ref, platform string) (ResolvedImage, error)
	// File returns the digest of a local file, "sha256:<hex>". ref is what
	// stands behind "file:".
	File(ref string) (digest string, err error)
}

// ResolvedImage is an image by its digests, and what its OCI configuration
// says of the process.
type ResolvedImage struct {
	Image      spec.Image
	Args       []string
	Env        map[string]string
	Cwd        string
	User       string // "uid:gid"
	StopSignal string
}

// Deployment renders an author's document, YAML or JSON. Refusals are
// *spec.FieldError.
func Deployment(in []byte, r Resolver) ([]byte, error) {
	if len(in) > maxInput {
		return nil, strict.Errorf("", "has %d bytes, at most %d are allowed", len(in), maxInput)
	}
	tree, err := parse(in)
	if err != nil {
		return nil, err
	}
	top, ok := tree.(map[string]any)
	if !ok {
		return nil, strict.Errorf("", "is no mapping of fields")
	}
	f := filler{top: top, resolver: r}
	if err := f.fill(); err != nil {
		return nil, err
	}
	// From here on the document has to be a spec like any other one.
	full, err := json.Marshal(top)
	if err != nil {
		return nil, fmt.Errorf("encode the filled document: %w", err)
	}
	var d spec.Deployment
	if err := strict.Decode(full, &d, 2*maxInput); err != nil {
		return nil, err
	}
	return d.Encode()
}

// parse reads JSON as JSON and all else as YAML. YAML readers fail on some
// JSON (surrogate pairs), so one grammar for both would refuse what is right.
func parse(in []byte) (any, error) {
	if bytes.HasPrefix(bytes.TrimSpace(in), []byte("{")) && json.Valid(in) {
		return strict.Tree(in, maxInput)
	}
	return parseYAML(in)
}

// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
)

// Visit is called for every entry of a package, with its absolute path. For
// regular files r delivers the content.
type Visit func(name string, hdr *tar.Header, r io.Reader) error

// Walk reads a package's files in their order. dpkg-deb, which every machine
// with apt has, undoes whatever compression the package uses.
func Walk(ctx context.Context, deb string, visit Visit) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open %s: %w", deb, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("open %s: %w", deb, err)
	}
	walk := func() error {
		t := tar.NewReader(out)
		for {
			hdr, err := t.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", deb, err)
			}
			if err := visit(path.Clean("/"+hdr.Name), hdr, t); err != nil {
				return err
			}
		}
		// What follows the end mark is padding; dpkg-deb must not see a broken pipe.
		if _, err := io.Copy(io.Discard, out); err != nil {
			return fmt.Errorf("read %s: %w", deb, err)
		}
		return nil
	}
	if err := walk(); err != nil {
		cancel()
		// The walk's error is the cause; that the cancelled child failed is its effect.
		return errors.Join(err, ignoreExit(cmd.Wait()))
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb %s: %w: %s", deb, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Control returns the fields of a package's control file.
func Control(ctx context.Context, deb string) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb --field %s: %w", deb, err)
	}
	all := splitStanzas(string(out))
	if len(all) != 1 {
		return nil, fmt.Errorf("dpkg-deb --field %s: %d stanzas, want 1", deb, len(all))
	}
	fields := parseStanza(all[0])
	for k, v := range fields {
		fields[k] = strings.TrimSpace(v)
	}
	return fields, nil
}

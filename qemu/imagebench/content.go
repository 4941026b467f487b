// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/tree"
)

const contentRow = "what umoci unpacks is what the kernel sees"

// content compares an image, as this kernel mounts it, with the tree that umoci
// unpacks from the same layout: content, owner, mode, time, attributes, links.
func (b *bench) content(ctx context.Context, m made) (err error) {
	const goal = "no difference"
	if _, err := exec.LookPath("umoci"); err != nil {
		b.cannot(contentRow, goal, m, "no umoci")
		return nil
	}
	if err := b.fresh(); err != nil {
		return err
	}
	disk, err := b.disk(ctx, m)
	if err != nil {
		return err
	}
	bundle, root := b.path("work", "bundle"), b.path("work", "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if _, err := run(ctx, "umoci", "unpack", "--image", m.layout+":latest", bundle); err != nil {
		return err
	}
	unmount, err := mountLike(ctx, disk, root, 128)
	defer func() { err = errors.Join(err, unmount()) }()
	if err != nil {
		b.cannot(contentRow, goal, m, err.Error())
		return nil
	}
	untimed, err := untimedDirs(m.tar)
	if err != nil {
		return err
	}
	ours, err := tree.Describe(root, untimed)
	if err != nil {
		return err
	}
	theirs, err := tree.Describe(filepath.Join(bundle, "rootfs"), untimed)
	if err != nil {
		return err
	}
	r := row{What: contentRow, Than: "umoci unpack", Image: m.Name, Goal: goal, Names: len(theirs), Differ: tree.Differences(ours, theirs)}
	r.Holds = len(theirs) > 0 && len(r.Differ) == 0
	b.add(r)
	return nil
}

// disk converts an image, and gives the file of its disk.
func (b *bench) disk(ctx context.Context, m made) (name string, err error) {
	p, err := run(ctx, b.zos, "image", "convert", "oci:"+m.layout, "--store", b.path("work", "store"), "--json")
	if err != nil {
		return "", err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(p.out, &made); err != nil {
		return "", fmt.Errorf("result of zos image convert: %w", err)
	}
	s, err := zimage.OpenStore(b.path("work", "store"))
	if err != nil {
		return "", err
	}
	man, err := s.Manifest(made.ID)
	if err != nil {
		return "", err
	}
	f, err := os.Create(b.path("work", "disk"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, c := range man.Chunks {
		plain, err := s.Chunk(c)
		if err != nil {
			return "", err
		}
		if _, err := f.WriteAt(plain, c.Off); err != nil {
			return "", err
		}
	}
	return f.Name(), nil
}

// untimedDirs tells the directories of a tar that it does not name, and those that
// such a one stands in. The time of the former is 1970 by our rules, and whenever it
// was elsewhere; umoci, which makes them, changes the time of the latter.
func untimedDirs(name string) (untimed func(dir string) bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // was only read
	named, all := map[string]bool{}, map[string]bool{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		at := path.Clean("/" + h.Name)
		if h.Typeflag == tar.TypeDir {
			named[at] = true
		}
		for dir := path.Dir(at); !all[dir]; dir = path.Dir(dir) {
			all[dir] = true
		}
	}
	made := map[string]bool{}
	for dir := range all {
		if !named[dir] {
			made[dir], made[path.Dir(dir)] = true, true
		}
	}
	return func(dir string) bool { return made[dir] }, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed" // the lock
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
)

// amd64Lock is what the image was made of last: mkimages -update writes it anew.
//
//go:embed debian.amd64.lock
var amd64Lock []byte

// wanted is the package that the image is for.
const wanted = "nginx"

// unneeded are dependencies that are of use only where packages get installed.
var unneeded = map[string]string{
	"debconf":                 "asks questions at installation",
	"gcc-14-base":             "documentation only",
	"iproute2":                "for a start script of systemd",
	"openssl-provider-legacy": "ciphers that nobody should use",
}

// deb is a package file in the cache.
type deb struct {
	debian.Package
	path string
}

// packages gets the packages of the lock. Where the archive has them no more,
// or there is no lock for the architecture, the newest ones are resolved; web.lock
// in the output folder then says which these were, and holds from then on.
func packages(ctx context.Context, cache, workLock, arch string, update bool, log *slog.Logger) ([]deb, error) {
	archive, err := debian.Open(cache, kernel.Suite, arch, log)
	if err != nil {
		return nil, err
	}
	committed := debian.Lock{}
	if arch == "amd64" {
		if committed, err = debian.ParseLock(amd64Lock); err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
	}
	work, err := debian.ReadLock(workLock)
	if err != nil {
		return nil, err
	}
	if !update {
		for _, lock := range []debian.Lock{committed, work} {
			if _, ok := lock[wanted]; !ok {
				continue
			}
			debs, err := fetch(ctx, archive, lock)
			if !errors.Is(err, debian.ErrGone) {
				return debs, errors.Join(err, lock.Write(workLock, kernel.Suite))
			}
			log.Warn("A LOCK OF THE WEB IMAGE NO LONGER HOLDS: the image will differ from the one that it describes", "part", "mkimages", "err", err)
		}
	}
	lock, err := resolve(ctx, archive)
	if err != nil {
		return nil, err
	}
	debs, err := fetch(ctx, archive, lock)
	if err != nil {
		return nil, err
	}
	return debs, lock.Write(workLock, kernel.Suite)
}

// fetch brings the packages of a lock into the cache, checked by SHA-256, and
// gives them in the order of their names.
func fetch(ctx context.Context, archive *debian.Archive, lock debian.Lock) ([]deb, error) {
	names := slices.Sorted(maps.Keys(lock))
	var all []debian.Package
	for _, n := range names {
		all = append(all, lock[n])
	}
	if err := archive.Prefetch(ctx, all); err != nil {
		return nil, err
	}
	var debs []deb
	for _, p := range all {
		path, err := archive.Fetch(ctx, p)
		if err != nil {
			return nil, err
		}
		debs = append(debs, deb{p, path})
	}
	return debs, nil
}

// resolve finds the newest versions of the wanted package and of all that it
// depends on.
func resolve(ctx context.Context, archive *debian.Archive) (debian.Lock, error) {
	lock := debian.Lock{}
	queue := []string{wanted}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if _, ok := lock[name]; ok {
			continue
		}
		p, err := archive.Resolve(ctx, name)
		if err != nil {
			return nil, err
		}
		lock[name] = p
		fields, err := archive.Show(ctx, name)
		if err != nil {
			return nil, err
		}
		queue = append(queue, depends(fields["Pre-Depends"]+","+fields["Depends"])...)
	}
	return lock, nil
}

// depends lists the packages of a dependency field that the image needs. Of
// alternatives the first counts.
func depends(field string) []string {
	var out []string
	for d := range strings.SplitSeq(field, ",") {
		first, _, _ := strings.Cut(d, "|")
		words := strings.FieldsFunc(first, func(r rune) bool { return r == ' ' || r == '(' || r == ':' || r == '\n' || r == '[' })
		if len(words) > 0 && unneeded[words[0]] == "" {
			out = append(out, words[0])
		}
	}
	return out
}

func nginxOf(debs []deb) string {
	for _, d := range debs {
		if d.Name == wanted {
			return d.Name + " " + d.Version
		}
	}
	return wanted
}

// SPDX-License-Identifier: Apache-2.0

package fat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// List names the files of a folder; none if there is no such folder.
func (v *Volume) List(dir string) ([]string, error) {
	_, e, _, err := v.find(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && e == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := v.folder(e.start)
	if err != nil {
		return nil, err
	}
	all, _ := f.entries()
	var names []string
	for _, e := range all {
		if e.attr&attrFolder == 0 {
			names = append(names, e.name)
		}
	}
	return names, nil
}

// lookup finds a file that has to be there.
func (v *Volume) lookup(path string) (*folder, *entry, error) {
	f, e, _, err := v.find(path)
	if err == nil && (e == nil || e.attr&attrFolder != 0) {
		err = fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return f, e, err
}

// Size is the length of a file.
func (v *Volume) Size(path string) (int64, error) {
	_, e, err := v.lookup(path)
	if err != nil {
		return 0, err
	}
	return e.size, nil
}

// Open reads a file from the device.
func (v *Volume) Open(path string) (io.Reader, error) {
	_, e, err := v.lookup(path)
	if err != nil {
		return nil, err
	}
	clusters, ok := v.chain(e.start)
	if e.size == 0 {
		clusters, ok = nil, true
	}
	if !ok || len(clusters) < v.need(e.size) {
		return nil, fmt.Errorf("%s: %w: its chain is broken", path, ErrFormat)
	}
	return &reader{v: v, clusters: clusters, left: e.size}, nil
}

// reader goes along a chain, as many clusters in a row at once as there are.
type reader struct {
	v        *Volume
	clusters []uint32
	skip     int64 // bytes of the first cluster that were read
	left     int64
}

func (r *reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), r.left, r.v.row(r.clusters)*r.v.cluster-r.skip)
	if err := r.v.read(b[:n], r.v.at(r.clusters[0])+r.skip); err != nil {
		return 0, err
	}
	r.left -= n
	r.skip += n
	r.clusters = r.clusters[r.skip/r.v.cluster:]
	r.skip %= r.v.cluster
	return int(n), nil
}

// row is how many clusters at the beginning of a list follow each other on the
// disk.
func (v *Volume) row(clusters []uint32) int64 {
	n := 1
	for n < len(clusters) && clusters[n] == clusters[n-1]+1 {
		n++
	}
	return int64(n)
}

// pieceSize is what is written at once.
const pieceSize = 1 << 20

// Overwrite makes a file hold exactly what r gives, n bytes, in the clusters
// that it has already as far as they go. Until it returns, the file holds
// anything. When there is no room, nothing was changed.
func (v *Volume) Overwrite(path string, r io.Reader, n int64) error {
	f, e, name, err := v.find(path)
	if err != nil {
		return err
	}
	if e != nil && e.attr&attrFolder != 0 || n < 0 || n > 1<<32-1 {
		return fmt.Errorf("%s: %w", path, fs.ErrInvalid)
	}
	var clusters []uint32
	if e != nil && e.start != 0 {
		var ok bool
		if clusters, ok = v.chain(e.start); !ok {
			return fmt.Errorf("%s: %w: its chain is broken", path, ErrFormat)
		}
	}
	if more := v.need(n) - len(clusters); more > 0 {
		got, err := v.allocate(more, end)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(clusters) > 0 {
			err = v.set(map[uint32]uint32{clusters[len(clusters)-1]: got[0]})
		} else if e != nil {
			f.point(e, got[0], e.size)
			err = v.store(f, e.last)
		}
		if err != nil {
			return err
		}
		clusters = append(clusters, got...)
	}
	if err := v.fill(clusters, r, n); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	start := uint32(0)
	if n > 0 {
		start = clusters[0]
	}
	if e == nil {
		used, err := v.put(f, name, start, n)
		if err != nil {
			return fmt.Errorf("%s: %w", path, errors.Join(err, v.release(clusters)))
		}
		return errors.Join(v.store(f, used...), v.count())
	}
	f.point(e, start, n)
	if err := v.store(f, e.last); err != nil {
		return err
	}
	return errors.Join(v.cut(clusters, v.need(n)), v.count())
}

// fill writes n bytes into a chain.
func (v *Volume) fill(clusters []uint32, r io.Reader, n int64) error {
	buf := make([]byte, max(pieceSize, v.cluster))
	for left := n; left > 0; {
		size := min(v.row(clusters)*v.cluster, int64(len(buf)))
		b := buf[:size]
		clear(b)
		if _, err := io.ReadFull(r, b[:min(size, left)]); err != nil {
			return fmt.Errorf("%d bytes are missing: %w", left, err)
		}
		if err := v.write(b, v.at(clusters[0])); err != nil {
			return err
		}
		left -= min(size, left)
		clusters = clusters[size/v.cluster:]
	}
	if extra, err := io.ReadFull(r, make([]byte, 1)); extra > 0 || !errors.Is(err, io.EOF) {
		return errors.Join(fmt.Errorf("more than %d bytes came", n), err)
	}
	return v.sync()
}

// cut ends a chain after keep clusters and frees the rest.
func (v *Volume) cut(clusters []uint32, keep int) error {
	if len(clusters) <= keep {
		return nil
	}
	if keep > 0 {
		if err := v.set(map[uint32]uint32{clusters[keep-1]: end}); err != nil {
			return err
		}
	}
	return v.release(clusters[keep:])
}

// Remove takes a file away.
func (v *Volume) Remove(path string) error {
	f, e, err := v.lookup(path)
	if err != nil {
		return err
	}
	clusters, ok := v.chain(e.start)
	if e.start != 0 && !ok {
		return fmt.Errorf("%s: %w: its chain is broken", path, ErrFormat)
	}
	if err := v.store(f, f.strike(e)...); err != nil {
		return err
	}
	if e.start == 0 {
		return nil
	}
	return errors.Join(v.release(clusters), v.count())
}

// Rename gives a file another name in its folder, in place of what may have
// that name. Where both names stand in one sector, as they do in a folder of a
// few files, it is one write; else there are two names for a moment.
func (v *Volume) Rename(from, to string) error {
	dir, name := cutPath(to)
	if was, _ := cutPath(from); !strings.EqualFold(was, dir) {
		return fmt.Errorf("%s to %s: want one folder: %w", from, to, fs.ErrInvalid)
	}
	f, e, err := v.lookup(from)
	if err != nil {
		return err
	}
	_, old, _, err := v.find(to)
	if err != nil {
		return err
	}
	if old != nil && old.attr&attrFolder != 0 || old != nil && old.last == e.last {
		return fmt.Errorf("%s to %s: %w", from, to, fs.ErrInvalid)
	}
	if old != nil {
		was, ok := v.chain(old.start)
		if old.start != 0 && !ok {
			return fmt.Errorf("%s: %w: its chain is broken", to, ErrFormat)
		}
		begun := old.start != 0
		f.point(old, e.start, e.size)
		if err := v.swap(f, []int{old.last}, e); err != nil || !begun {
			return err
		}
		return errors.Join(v.release(was), v.count())
	}
	before := len(f.clusters)
	used, err := v.put(f, name, e.start, e.size)
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	if err := v.swap(f, used, e); err != nil {
		return err
	}
	if len(f.clusters) > before {
		return v.count()
	}
	return nil
}

// swap writes entries that are new and strikes those of e: in one write if they
// stand in one sector, else the new ones first.
func (v *Volume) swap(f *folder, made []int, e *entry) error {
	per := int(v.sector) / entrySize
	one := e.first/per == e.last/per
	for _, i := range made {
		one = one && i/per == e.last/per
	}
	if one {
		return v.store(f, append(made, f.strike(e)...)...)
	}
	if err := v.store(f, made...); err != nil {
		return err
	}
	return v.store(f, f.strike(e)...)
}

func cutPath(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// listed is a store with a blob of so many bytes and its list.
func listed(t *testing.T, size int) (s *Store, body []byte, digest, list string) {
	t.Helper()
	s, body = openTestStore(t), noise(size, 7)
	path := filepath.Join(t.TempDir(), "uki")
	put(t, path, body)
	digest, list, err := s.AddBlobInChunks(path)
	if err != nil || digest != digestOf(body) {
		t.Fatal(digest, err)
	}
	return s, body, digest, list
}

func blobPath(digest string) string { return "/blobs/" + strings.TrimPrefix(digest, "sha256:") }

// serving answers with other bytes than the store has, ranges of them too.
func serving(path string, body []byte) twist {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return true
	}
}

// short sends no more than n bytes of each range, and no length.
func short(path string, body []byte, n int64) twist {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		var from, to int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil || r.URL.Path != path {
			return false
		}
		w.WriteHeader(http.StatusPartialContent)
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write(body[from:min(to+1, from+n)]); err != nil {
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

// breaking breaks the nth answer of a path in its middle.
func breaking(path string, from, to int32) twist {
	var n atomic.Int32
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		if at := n.Add(1); at < from || at > to {
			return false
		}
		w.Header().Set("Content-Length", "262144")
		w.WriteHeader(http.StatusPartialContent)
		if _, err := w.Write(make([]byte, 1000)); err != nil {
			panic(http.ErrAbortHandler)
		}
		panic(http.ErrAbortHandler)
	}
}

// behind answers nothing before another mirror was reported.
func behind(f *Fetcher) twist {
	reported, report := make(chan struct{}), f.Report
	open := sync.OnceFunc(func() { close(reported) })
	f.Report = func(mirror, what string, err error) {
		report(mirror, what, err)
		open()
	}
	return func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-reported:
		case <-r.Context().Done():
		}
		return false
	}
}

// TestBlobByChunks: one fault of mirrors after the other. What is wrong is
// never kept, is said, and is asked of the other mirror alone.
func TestBlobByChunks(t *testing.T) {
	const chunks = 5
	s, body, digest, list := listed(t, (chunks-1)*MaxChunk+1000)
	name, listName := blobPath(digest), blobPath(list)
	altered := bytes.Clone(body)
	altered[2*MaxChunk+17] ^= 1
	wrongList, err := os.ReadFile(filepath.Join(s.Dir(), listName))
	if err != nil {
		t.Fatal(err)
	}
	wrongList[len(wrongList)-5] ^= 1
	whole := func(path string) twist { // knows no ranges
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}
	}
	missing := func(path string) twist {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == path {
				http.NotFound(w, r)
			}
			return r.URL.Path == path
		}
	}
	forward := func(int, http.ResponseWriter, *http.Request) bool { return false }
	for _, c := range []struct {
		name          string
		first, second twist
		want          error
		reported      error // of the first mirror
		second1       int   // how often the second was asked for the blob; -1: do not look
	}{
		{name: "right", second1: -1},
		{name: "a chunk altered at the only mirror", first: serving(name, altered), want: ErrMismatch, reported: ErrMismatch, second1: -1},
		{name: "a chunk altered at one of two", first: serving(name, altered), second: forward, reported: ErrMismatch, second1: -1},
		{name: "truncated file at one of two", first: serving(name, body[:3*MaxChunk-1]), second: forward, reported: ErrMismatch, second1: -1},
		{name: "truncated file at the only mirror", first: serving(name, body[:3*MaxChunk-1]), want: ErrMismatch, reported: ErrMismatch, second1: -1},
		{name: "answers end early", first: short(name, body, 1000), second: forward, reported: ErrMismatch, second1: -1},
		{name: "breaks off, comes back", first: breaking(name, 2, 4), second1: -1},
		{name: "gone in the middle, the other goes on", first: breaking(name, 3, 1<<30), second: forward, second1: -1},
		{name: "has no such blob, the other has", first: missing(name), second: forward, reported: ErrMissing, second1: chunks},
		{name: "nobody has it", first: missing(name), want: ErrMissing, reported: ErrMissing, second1: -1},
		{name: "no ranges: as a whole", first: whole(name), reported: ErrMissing, second1: -1},
		{name: "no list: as a whole", first: missing(listName), reported: ErrMissing, second1: -1},
		{name: "the list is wrong at one of two", first: serving(listName, wrongList), second: forward, reported: ErrMismatch, second1: -1},
		{name: "the list is wrong at the only mirror", first: serving(listName, wrongList), want: ErrMismatch, reported: ErrMismatch, second1: -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := serveStore(t, s, c.first)
			f, rep := fetcher(first.URL)
			var second *mirror
			if c.second != nil {
				second = serveStore(t, s, c.second)
				if c.reported != nil { // else a slow machine asks the second too soon
					second = serveStore(t, s, behind(f))
				}
				f.Mirrors = append(f.Mirrors, second.URL)
			}
			path := filepath.Join(t.TempDir(), "uki")
			var asked int64
			_, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body)), path, func(n int64) error { asked += n; return nil })
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if got := rep.errs[first.URL]; (len(got) > 0) != (c.reported != nil) || len(got) > 0 && !errors.Is(got[0], c.reported) {
				t.Errorf("reported: %v, want %v", got, c.reported)
			}
			if second != nil && len(rep.errs[second.URL]) > 0 {
				t.Errorf("reported of the good mirror: %v", rep.errs[second.URL])
			}
			if c.second1 >= 0 && second.count(name) != c.second1 {
				t.Errorf("the second mirror was asked %d times, want %d", second.count(name), c.second1)
			}
			mustExist(t, path, c.want == nil)
			if c.want != nil {
				got, err := os.ReadFile(path + ".part")
				if err != nil {
					return // not a chunk came
				}
				for i := range got {
					if got[i] != 0 && got[i] != body[i] {
						t.Fatalf("byte %d of a wrong chunk was kept", i)
					}
				}
				return
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
				t.Errorf("not the blob: %v", err)
			}
			mustExist(t, path+".part", false)
			if asked != int64(len(body)) {
				t.Errorf("room for %d bytes was asked for", asked)
			}
			if n, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body)), path, func(int64) error { return errors.New("asked again") }); err != nil || n > MaxChunkList {
				t.Errorf("second time: %d %v", n, err)
			}
		})
	}
}

// TestSignedListIsWrong: a list that is not of the blob is the signer's fault,
// and no mirror is blamed.
func TestSignedListIsWrong(t *testing.T) {
	s, body, digest, list := listed(t, 3*MaxChunk)
	other, err := ListChunks(bytes.NewReader(noise(3*MaxChunk, 8)))
	if err != nil {
		t.Fatal(err)
	}
	lying := other
	lying.Blob = digest
	good, err := ListChunks(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	good.Chunks[0], good.Chunks[1] = good.Chunks[1], good.Chunks[0]
	for name, l := range map[string]ChunkList{"of another blob": other, "says that it is of this one": lying, "in another order": good} {
		b, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		wrong := filepath.Join(t.TempDir(), "list")
		put(t, wrong, b)
		id, err := s.AddBlob(wrong)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := fetcher(serveStore(t, s, nil).URL)
		path := filepath.Join(t.TempDir(), "uki")
		_, err = f.BlobByChunks(t.Context(), digest, id, int64(len(body)), path, func(int64) error { return nil })
		if name == "of another blob" && !errors.Is(err, ErrList) || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		mustExist(t, path, false)
	}
	f, _ := fetcher(serveStore(t, s, nil).URL)
	if _, err := f.BlobByChunks(t.Context(), digest, digest, int64(len(body)), filepath.Join(t.TempDir(), "uki"), func(int64) error { return nil }); err == nil {
		t.Error("the blob itself was taken for its list")
	}
	if _, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body))-1, filepath.Join(t.TempDir(), "uki"), func(int64) error { return nil }); !errors.Is(err, ErrList) {
		t.Errorf("another size: %v", err)
	}
}

// TestBlobByChunksRoom: what does not fit is not asked for, and what is here
// already needs no room.
func TestBlobByChunksRoom(t *testing.T) {
	s, body, digest, list := listed(t, 4*MaxChunk)
	m := serveStore(t, s, nil)
	f, rep := fetcher(m.URL)
	path := filepath.Join(t.TempDir(), "uki")
	_, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body)), path, func(int64) error { return ErrNoRoom })
	if !errors.Is(err, ErrNoRoom) || m.count(blobPath(digest)) > 0 || len(rep.errs) > 0 {
		t.Errorf("%v, asked %d times, reported %v", err, m.count(blobPath(digest)), rep.errs)
	}
	// Of an older attempt: the second chunk, a wrong third, more than there is.
	left := append(make([]byte, MaxChunk), body[MaxChunk:2*MaxChunk]...)
	put(t, path+".part", append(left, noise(4*MaxChunk, 9)...))
	var asked int64
	if _, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body)), path, func(n int64) error { asked = n; return nil }); err != nil {
		t.Fatal(err)
	}
	if asked != 3*MaxChunk || m.count(blobPath(digest)) != 3 {
		t.Errorf("room for %d bytes, %d chunks fetched", asked, m.count(blobPath(digest)))
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
		t.Errorf("not the blob: %v", err)
	}
}

const killedEnv = "ZOS_TEST_BLOB_BY_CHUNKS"

// TestBlobByChunksKilled kills a program in the middle of a download. The next
// one asks only for what the first had not kept.
func TestBlobByChunksKilled(t *testing.T) {
	if args := strings.Split(os.Getenv(killedEnv), " "); len(args) == 5 { // the program that is killed
		f, _ := fetcher(args[0])
		var size int64
		if _, err := fmt.Sscan(args[3], &size); err != nil {
			t.Fatal(err)
		}
		_, err := f.BlobByChunks(t.Context(), args[1], args[2], size, args[4], func(int64) error { return nil })
		t.Fatalf("it came to its end: %v", err)
	}
	const chunks, before = 24, 12
	s, body, digest, list := listed(t, chunks*MaxChunk)
	var served atomic.Int32
	reached, release := make(chan struct{}), make(chan struct{})
	held := serveStore(t, s, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == blobPath(digest) && served.Add(1) > before {
			select {
			case reached <- struct{}{}:
			case <-release:
			}
			<-release
			panic(http.ErrAbortHandler)
		}
		return false
	})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	path := filepath.Join(t.TempDir(), "uki")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestBlobByChunksKilled$", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %d %s", killedEnv, held.URL, digest, list, len(body), path))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	select {
	case <-reached:
	case err := <-ended:
		t.Fatalf("it ended before: %v\n%s", err, out.String())
	}
	// Four are asked for at once: when all of them hang, what came before is kept.
	for range parallel - 1 {
		select {
		case <-reached:
		case err := <-ended:
			t.Fatalf("it ended before: %v\n%s", err, out.String())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err = <-ended
	letGo()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("not killed: %v\n%s", err, out.String())
	}
	mustExist(t, path, false)
	m := serveStore(t, s, nil)
	f, _ := fetcher(m.URL)
	if _, err := f.BlobByChunks(t.Context(), digest, list, int64(len(body)), path, func(int64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
		t.Errorf("not the blob: %v", err)
	}
	if got := m.count(blobPath(digest)); got != chunks-before {
		t.Errorf("%d chunks were fetched, want %d: %d had been kept", got, chunks-before, before)
	}
}

func TestChunkList(t *testing.T) {
	for _, size := range []int{1, MaxChunk - 1, MaxChunk, MaxChunk + 1, 3 * MaxChunk} {
		body := noise(size, 1)
		l, err := ListChunks(io.MultiReader(bytes.NewReader(body[:size/2]), bytes.NewReader(body[size/2:])))
		if err != nil || l.Blob != digestOf(body) || l.Size != int64(size) {
			t.Fatalf("%+v %v", l, err)
		}
		for _, c := range l.pieces() {
			if err := checkChunk(body[c.Off:c.Off+c.Size], c); err != nil {
				t.Error(err)
			}
		}
		b, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeChunkList(b); err != nil || fmt.Sprint(again) != fmt.Sprint(l) {
			t.Errorf("%+v %v", again, err)
		}
		for name, wrong := range map[string][]byte{
			"another format": bytes.Replace(b, []byte(`"format":1`), []byte(`"format":2`), 1), "white space": append(bytes.Clone(b), '\n'),
			"a chunk too many": bytes.Replace(b, []byte(`"chunks":[`), []byte(`"chunks":["`+strings.Repeat("0", 64)+`",`), 1), "no blob": bytes.Replace(b, []byte("sha256:"), []byte("sha512:"), 1),
			"no size": bytes.Replace(b, fmt.Appendf(nil, `"size":%d`, size), []byte(`"size":0`), 1), "capitals": bytes.Replace(b, []byte(l.Chunks[0]), []byte("A"+l.Chunks[0][1:]), 1),
			"other order": bytes.Replace(b, []byte(`{"format":1,`), []byte(`{`), 1), "nothing": nil,
		} {
			if _, err := DecodeChunkList(wrong); !errors.Is(err, ErrList) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := ListChunks(bytes.NewReader(nil)); !errors.Is(err, ErrList) {
		t.Errorf("of nothing: %v", err)
	}
}

// FuzzChunkList: a list that is accepted is in its one spelling and covers its
// blob without gap or overlap.
func FuzzChunkList(f *testing.F) {
	body := noise(MaxChunk+10, 1)
	l, err := ListChunks(bytes.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	good, err := l.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"format":1`), []byte(`"format":1.0`), 1))
	f.Add(bytes.Replace(good, []byte(`"size":262154`), []byte(`"size":9223372036854775807`), 1))
	f.Add([]byte(`{"format":1,"blob":"","size":0,"chunks":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeChunkList(b)
		if err != nil {
			if !errors.Is(err, ErrList) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written again: %s %v", again, err)
		}
		at := int64(0)
		for i, c := range l.pieces() {
			if c.Off != at || c.Size < 1 || c.Size > MaxChunk || !isHex(c.ID) {
				t.Fatalf("chunk %d of %d bytes at %d, want at %d", i, c.Size, c.Off, at)
			}
			at += c.Size
		}
		if at != l.Size || l.Size > MaxBlob {
			t.Errorf("chunks end at %d of %d", at, l.Size)
		}
	})
}

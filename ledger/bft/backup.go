// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// members are what a backup holds beside the log: who this server is, and
// what it signed last.
var members = []string{
	"comet/data/signed.json", // first: it may be older than the rest, never newer
	"root.json", "validator.json", "mesh.json", "comet/genesis.json", "keys/log.key", "keys/validator.key", "keys/consensus.json", "keys/p2p.json",
}

// member is the name of any file in a backup.
var member = regexp.MustCompile(`^(root\.json|validator\.json|mesh\.json|comet/genesis\.json|comet/data/signed\.json|keys/(log\.key|validator\.key|consensus\.json|p2p\.json)|log/.+)$`)

// BackedUp says what a backup holds.
type BackedUp struct {
	Entries int64 `json:"entries"` // with which a restored server starts
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
}

// Backup writes a tar of a ledger's folder while a server runs on it: every
// entry that had a receipt when it began is in it. It asks the server for a
// snapshot of now, and waits for it.
func Backup(ctx context.Context, dir string, to io.Writer) (BackedUp, error) {
	var done BackedUp
	if _, err := os.Stat(filepath.Join(dir, "root.json")); err != nil {
		return done, fmt.Errorf("%s is no ledger folder: %w", dir, err)
	}
	w := tar.NewWriter(to)
	add := func(name string, b []byte, mode int64) error {
		h := &tar.Header{Name: name, Mode: mode, Size: int64(len(b)), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		done.Files, done.Bytes = done.Files+1, done.Bytes+int64(len(b))
		return nil
	}
	for _, name := range members {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) && name == "mesh.json" {
			continue
		} else if err != nil {
			return done, fmt.Errorf("back up: %w", err)
		}
		if err := add(name, b, 0o600); err != nil {
			return done, err
		}
	}
	log := LogDir(dir)
	if begins, err := atGenesis(log); err != nil {
		return done, err
	} else if begins {
		return done, ErrNothing
	}
	if err := ask(ctx, dir); err != nil {
		return done, err
	}
	for range mismatches {
		state, consensus, err := pair(log)
		if err != nil {
			return done, err
		}
		if heightOf(consensus) != state.Height() {
			time.Sleep(100 * time.Millisecond) // a newer one is being written
			continue
		}
		done.Entries = state.Size()
		if err := add("log/snapshot", state.Snapshot(), 0o644); err != nil {
			return done, err
		}
		if err := add("log/consensus", consensus, 0o644); err != nil {
			return done, err
		}
		if err := backupLog(log, add); err != nil {
			return done, err
		}
		if err := w.Close(); err != nil {
			return done, fmt.Errorf("write the backup: %w", err)
		}
		return done, nil
	}
	return done, errors.New("back up: the snapshot and what belongs to it never fitted together")
}

const mismatches = 100

// pair reads a snapshot and where consensus stood.
func pair(log tiles.Dir) (*ledger.State, []byte, error) {
	b, err := log.Read("snapshot")
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	s, err := ledger.OpenSnapshot(b)
	if err != nil {
		return nil, nil, err
	}
	consensus, err := log.Read("consensus")
	if err != nil {
		return nil, nil, fmt.Errorf("where consensus stands: %w", err)
	}
	return s, consensus, nil
}

// ErrNothing says that a ledger has ordered nothing. There is no block from which a
// restored one could go on.
var ErrNothing = errors.New("the ledger has ordered nothing yet, so there is nothing to back up; stop the server and copy the folder as it is, or submit something first")

// atGenesis says whether a log has nothing but what Init wrote: the root of trust and
// the block leaf after it.
func atGenesis(log tiles.Dir) (bool, error) {
	signed, err := log.Read("checkpoint")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("checkpoint: %w", err)
	}
	tree, err := treeOf(signed)
	return tree.N <= 2, err
}

// treeOf is the tree of a checkpoint that this server wrote.
func treeOf(signed []byte) (tlog.Tree, error) {
	origin, _, _ := strings.Cut(string(signed), "\n")
	text, _, _ := strings.Cut(string(signed), "\n\n")
	tree, err := tiles.ParseTree(origin, text+"\n")
	if err != nil {
		return tree, fmt.Errorf("checkpoint: %w", err)
	}
	return tree, nil
}

// ask wants a snapshot of the server that runs on a folder.
func ask(ctx context.Context, dir string) error {
	if err := os.WriteFile(wantFile(dir), nil, 0o600); err != nil {
		return fmt.Errorf("ask for a snapshot: %w", err)
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err := os.Stat(wantFile(dir)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the server did not make a snapshot: it stands still (see /healthz and its log), or it has ordered nothing yet: %w", ctx.Err()), os.Remove(wantFile(dir)))
		}
	}
}

// backupLog adds the files that the present checkpoint covers.
func backupLog(log tiles.Dir, add func(string, []byte, int64) error) error {
	signed, err := log.Read("checkpoint")
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tree, err := treeOf(signed)
	if err != nil {
		return err
	}
	paths := []string{}
	for _, t := range tlog.NewTiles(tiles.Height, 0, tree.N) {
		if t.L == 0 {
			paths = append(paths, tiles.BundlePath(t.N, t.W))
		}
		paths = append(paths, tiles.Path(t))
	}
	for _, path := range paths {
		b, err := log.Read(path)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "tile/entries/") {
			continue // pruned; a restore says which
		} else if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		if err := add("log/"+path, b, 0o644); err != nil {
			return err
		}
	}
	for v := 1; ; v++ {
		path := "root/" + strconv.Itoa(v) + ".json"
		b, err := log.Read(path)
		if errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		if err := add("log/"+path, b, 0o644); err != nil {
			return err
		}
	}
	if b, err := log.Read("pruned"); err == nil {
		if err := add("log/pruned", b, 0o644); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up: %w", err)
	}
	return add("log/checkpoint", signed, 0o644)
}

// Restore makes a ledger's folder of a backup, every byte of whose log is
// proven. height is the newest block that any other validator has, with entries or
// without (ledger.Client.NewestBlock), 0 if there is none: this one then signs
// nothing up to unsigned blocks after that, because what it signed after the backup
// is not known any more.
func Restore(ctx context.Context, from io.Reader, dir string, height int64) (done BackedUp, err error) {
	if err := vacant(dir); err != nil {
		return done, err
	}
	defer undo(dir, &err)()
	temp := filepath.Join(dir, ".restore")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if done, err = unpack(from, temp); err != nil {
		return done, err
	}
	for _, name := range members[1:] { // root.json last
		if name == "root.json" {
			continue
		}
		if err := keep(temp, dir, name); err != nil {
			return done, err
		}
	}
	if err := signedUpTo(temp, dir, height); err != nil {
		return done, err
	}
	root, err := os.ReadFile(filepath.Join(temp, "root.json"))
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: []string{temp}, Snapshot: true})
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := c.Sync(ctx); err != nil {
		return done, fmt.Errorf("restore: the backup's log: %w", err)
	}
	if _, err := loadKeys(dir); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := seed(ctx, c, dir, root, true); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := os.RemoveAll(temp); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	return done, tiles.WriteFileSync(filepath.Join(dir, "root.json"), root, 0o644)
}

// seed fills the log and CometBFT's stores of a folder with what a client has
// seen, as it was at the newest snapshot.
func seed(ctx context.Context, c *ledger.Client, dir string, root []byte, whole bool) error {
	if err := os.MkdirAll(string(LogDir(dir)), folderMode("log")); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	var g *begin
	_, err := c.Seed(ctx, LogDir(dir), whole, func(s *ledger.State, consensus []byte) (err error) {
		g, err = openBase(consensus, chainID(root), s)
		return err
	})
	if err != nil {
		return err
	}
	return g.write(dir)
}

// ErrCutOff says that a backup ends before it is whole. Another one is needed.
var ErrCutOff = errors.New("the backup is cut off, or is none")

func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCutOff
	}
	return fmt.Errorf("read the backup: %w", err)
}

// unpack writes the members of a backup below a folder.
func unpack(from io.Reader, dir string) (BackedUp, error) {
	var done BackedUp
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return done, readError(err)
		}
		log, inLog := strings.CutPrefix(h.Name, "log/")
		if h.Typeflag != tar.TypeReg || !member.MatchString(h.Name) || inLog && !tiles.ValidPath(log) {
			return done, fmt.Errorf("read the backup: it has a member %q, which is none of a ledger's", h.Name)
		}
		for key := range h.PAXRecords {
			// A few bytes that stand for as many zeros as somebody likes: they
			// would fill the disk, and Backup writes none.
			if strings.HasPrefix(key, "GNU.sparse.") {
				return done, fmt.Errorf("read the backup: its member %q is sparse, which none of a ledger's is", h.Name)
			}
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return done, fmt.Errorf("restore: %w", err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return done, fmt.Errorf("restore: %w", err)
		}
		n, err := io.Copy(f, r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return done, errors.Join(readError(err), f.Close())
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return done, fmt.Errorf("restore %s: %w", h.Name, err)
		}
		done.Files, done.Bytes = done.Files+1, done.Bytes+n
		if h.Name == "log/snapshot" {
			done.Entries = snapshotSize(LogDir(dir))
		}
	}
	const last = "log/checkpoint"
	if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(last))); err != nil {
		return done, fmt.Errorf("%w: %s is not in it, which is the last", ErrCutOff, last)
	}
	for _, name := range append(slices.Clone(members), "log/snapshot", "log/consensus") {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil && name != "mesh.json" {
			return done, fmt.Errorf("the backup is not whole: %s is not in it", name)
		}
	}
	return done, nil
}

// keep puts a member of a backup in its place, if there is one.
func keep(temp, dir, name string) error {
	b, err := os.ReadFile(filepath.Join(temp, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	mode := fs.FileMode(0o600)
	if !strings.HasPrefix(name, "keys/") {
		mode = 0o644
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return tiles.WriteFileSync(path, b, mode)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
	"github.com/zos-node/zos/zimage/publish"
	"github.com/zos-node/zos/zimage/s3"
)

// published is the result of zos image publish.
type published struct {
	To     string         `json:"to"`
	Sent   publish.Report `json:"total"`
	Items  []publishedOne `json:"items"`
	TookMs int64          `json:"tookMs"`
}

type publishedOne struct {
	ID   string `json:"id"`
	Kind string `json:"kind"` // "image", "blob" or "start"
	publish.Report
	Pack *pack.Made `json:"pack,omitempty"` // of a start
}

func (a *app) imagePublish() *cobra.Command {
	var store, to, start string
	var check bool
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "publish ID... --store DIR --to s3://BUCKET[/PREFIX]|DIR [--check] [--start FILE|ledger]",
		Short: "send images to a mirror: what it does not have yet",
		Long: `Send images, and guest kernels and initramfs by their digest, from a store to an
S3 bucket or to a folder that a web server serves. Chunks that are there already,
also from another image, are not sent again, and a publication that broke off goes
on where it stopped. Each file is checked before it is sent.

A file that is there and has the right length counts as there, whatever its bytes:
nodes refuse wrong ones, and get them elsewhere. One of another length is replaced.
With --check each file that is there is read and compared, and wrong ones are
replaced; so a mirror is mended whose disk has gone bad.

With --start a start pack goes with the image: one file with just those blocks of
it that a start reads, in one compressed stream, which nodes fetch first. So a guest
starts when a small part of its image has come. What a start reads is in FILE, as
"text" of "zos image inspect --json" has it, or it is what a node has recorded on the
ledger (--ledger, --root) of the newest start. A newer pack replaces an older one.
Nobody trusts a pack: each block is held against the image's verity root.

For s3:// the environment names server and key, as for AWS's own tools:
AWS_ENDPOINT_URL (for a server other than Amazon's), AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Nodes read with no
key: let anybody read the bucket's objects, and give nodes its URL as a mirror.

Exit codes: 0 each file is there and has the right length (with --check: the right
bytes), 3 refused (the store has wrong bytes, or the server says no), 4 no such
image, 5 the server does not answer.`,
		Example: `  zos image publish sha256:0123… --store build/store --to /srv/mirror
  zos image publish sha256:0123… --store build/store --to /srv/mirror --start ledger --ledger https://ledger.example --root root.json
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 zos image publish sha256:0123… --store build/store --to s3://images`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				if err := checkID(id); err != nil {
					return err
				}
			}
			if start != "" && len(args) != 1 {
				return coded(exitUsage, fmt.Errorf("--start is of one image, here are %d ids", len(args)))
			}
			for _, flag := range []string{"ledger", "root", "state"} {
				if cmd.Flags().Changed(flag) && start != fromLedger {
					return coded(exitUsage, fmt.Errorf("--%s is of a ledger, and none is asked without --start %s; give that too, or leave --%s out", flag, fromLedger, flag))
				}
			}
			from, err := openStore(store)
			if err != nil {
				return imageError(err)
			}
			for _, id := range args { // before a folder is made into a mirror
				isImage, err := from.HasImage(id)
				isBlob, berr := from.HasBlob(id)
				if err := errors.Join(err, berr); err != nil {
					return imageError(err)
				}
				if !isImage && isBlob && start != "" {
					return coded(exitUsage, fmt.Errorf("--start is of an image, and %s is a kernel or initramfs, which is fetched whole; leave --start out", id))
				}
				if !isImage && !isBlob {
					return coded(exitNotFound, fmt.Errorf("%s: %s has neither an image of this id, nor a kernel or initramfs of this digest; zos image convert and zos image blob say theirs", id, store))
				}
			}
			bucket, err := openBucket(to)
			if err != nil {
				return err
			}
			image, blob := publish.Image, publish.Blob
			if check {
				image, blob = publish.Check, publish.CheckBlob
			}
			r, begin := published{To: to}, time.Now()
			for _, id := range args {
				one := publishedOne{ID: id, Kind: "blob"}
				isImage, err := from.HasImage(id)
				switch {
				case err != nil:
				case isImage:
					one.Kind = "image"
					one.Report, err = image(cmd.Context(), from, id, bucket, a.bytesDone("publish "+id))
				default:
					one.Report, err = blob(cmd.Context(), from, id, bucket)
				}
				if err != nil {
					return publishError(err)
				}
				r.Items = append(r.Items, one)
				r.Sent.Sent += one.Sent
				r.Sent.SentBytes += one.SentBytes
				r.Sent.Replaced += one.Replaced
				r.Sent.Had += one.Had
				r.Sent.HadBytes += one.HadBytes
			}
			if start != "" {
				one, err := a.publishStart(cmd.Context(), from, args[0], start, f, bucket)
				if err != nil {
					return err
				}
				r.Items = append(r.Items, one)
				r.Sent.Sent += one.Sent
				r.Sent.SentBytes += one.SentBytes
			}
			r.TookMs = time.Since(begin).Milliseconds()
			return a.print(r, func(w io.Writer) {
				for _, one := range r.Items {
					if p := one.Pack; p != nil {
						fmt.Fprintf(w, "start pack of %s: %d blocks, %d of them hashes, in %s; %d blocks of the start did not fit\n", one.ID, p.Blocks, p.Hashes, size(one.SentBytes), p.Left)
						continue
					}
					fmt.Fprintf(w, "%s %s: sent %d files (%s), %d of them in place of others; %d were there (%s)\n", one.Kind, one.ID, one.Report.Sent, size(one.SentBytes), one.Replaced, one.Had, size(one.HadBytes))
				}
			})
		},
	}
	storeFlag(cmd, &store, "folder of the store")
	cmd.Flags().StringVar(&to, "to", "", "where to: s3://BUCKET[/PREFIX], or a folder")
	cmd.Flags().BoolVar(&check, "check", false, "read what is there, and replace what has wrong bytes")
	cmd.Flags().StringVar(&start, "start", "", `also publish a start pack, of what a start reads: a file that says it, or "ledger"`)
	f.add(cmd)
	required(cmd, "to")
	return cmd
}

// fromLedger is the --start that is no file.
const fromLedger = "ledger"

// publishStart publishes the start pack of an image.
func (a *app) publishStart(ctx context.Context, from *zimage.Store, id, where string, f ledgerFlags, to publish.Bucket) (publishedOne, error) {
	one := publishedOne{ID: id, Kind: "start", Pack: &pack.Made{}}
	m, err := from.Manifest(id)
	if err != nil {
		return one, imageError(err)
	}
	var start extent.List
	if where == fromLedger {
		c, err := a.sync(ctx, f)
		if err != nil {
			return one, err
		}
		s := trace.Last(c.State(), id, m)
		if s == nil {
			return one, noStart(id)
		}
		start = s.Blocks
	} else {
		text, err := readFile(where, "what a start reads", trace.MaxFile)
		if err != nil {
			return one, fileError(err)
		}
		if start, err = trace.Decode(strings.TrimSpace(string(text)), m); err == nil && len(start) == 0 {
			err = fmt.Errorf("%w: it lists nothing", trace.ErrText)
		}
		if err != nil {
			return one, coded(exitRefused, fmt.Errorf("%s: %w; want the text that `zos image inspect --json` has of a start", where, err))
		}
	}
	if one.Report, *one.Pack, err = publish.StartPack(ctx, from, id, start, to, a.bytesDone("start pack of "+id)); err != nil {
		return one, publishError(err)
	}
	return one, nil
}

// noStart says that an image has no recorded start.
func noStart(id string) error {
	return coded(exitNotFound, fmt.Errorf("%s: no node has recorded what a start of it reads; nodes do for images that they serve while those arrive", id))
}

// openBucket opens the target of a publication.
func openBucket(to string) (publish.Bucket, error) {
	if strings.HasPrefix(to, "s3://") {
		b, err := s3.Open(to, os.Getenv)
		if err != nil {
			return nil, coded(exitUsage, err)
		}
		return b, nil
	}
	if strings.Contains(to, "://") {
		return nil, coded(exitUsage, fmt.Errorf("publish to %q: want s3://BUCKET[/PREFIX] or a folder", to))
	}
	info, err := os.Stat(filepath.Dir(filepath.Clean(to)))
	if err != nil || !info.IsDir() {
		return nil, coded(exitNotFound, fmt.Errorf("publish to %s: there is no folder %s", to, filepath.Dir(filepath.Clean(to))))
	}
	// A folder that is a mirror has all of a store's folders.
	if _, _, err := makeStore(to); err != nil {
		return nil, imageError(err)
	}
	return publish.Folder(to), nil
}

// publishError gives an error of a publication its exit code.
func publishError(err error) error {
	switch {
	case errors.Is(err, s3.ErrRefused):
		return coded(exitRefused, err)
	case errors.Is(err, publish.ErrTemporary):
		return coded(exitUnreachable, err)
	}
	return imageError(err)
}

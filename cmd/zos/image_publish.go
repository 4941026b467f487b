// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
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
	Kind string `json:"kind"` // "image" or "blob"
	publish.Report
}

func (a *app) imagePublish() *cobra.Command {
	var store, to string
	var check bool
	cmd := &cobra.Command{
		Use:   "publish ID... --store DIR --to s3://BUCKET[/PREFIX]|DIR [--check]",
		Short: "send images to a mirror: what it does not have yet",
		Long: `Send images, and guest kernels and initramfs by their digest, from a store to an
S3 bucket or to a folder that a web server serves. Chunks that are there already,
also from another image, are not sent again, and a publication that broke off goes
on where it stopped. Each file is checked before it is sent.

A file that is there and has the right length counts as there, whatever its bytes:
nodes refuse wrong ones, and get them elsewhere. One of another length is replaced.
With --check each file that is there is read and compared, and wrong ones are
replaced; so a mirror is mended whose disk has gone bad.

For s3:// the environment names server and key, as for AWS's own tools:
AWS_ENDPOINT_URL (for a server other than Amazon's), AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Nodes read with no
key: let anybody read the bucket's objects, and give nodes its URL as a mirror.

Exit codes: 0 each file is there and has the right length (with --check: the right
bytes), 3 refused (the store has wrong bytes, or the server says no), 4 no such
image, 5 the server does not answer.`,
		Example: `  zos image publish sha256:0123… --store build/store --to /srv/mirror
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 zos image publish sha256:0123… --store build/store --to s3://images`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				if err := checkID(id); err != nil {
					return err
				}
			}
			from, err := openStore(store)
			if err != nil {
				return imageError(err)
			}
			bucket, err := openBucket(to)
			if err != nil {
				return err
			}
			image, blob := publish.Image, publish.Blob
			if check {
				image, blob = publish.Check, publish.CheckBlob
			}
			r, start := published{To: to}, time.Now()
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
			r.TookMs = time.Since(start).Milliseconds()
			return a.print(r, func(w io.Writer) {
				for _, one := range r.Items {
					fmt.Fprintf(w, "%s %s: sent %d files (%s), %d of them in place of others; %d were there (%s)\n", one.Kind, one.ID, one.Report.Sent, size(one.SentBytes), one.Replaced, one.Had, size(one.HadBytes))
				}
			})
		},
	}
	storeFlag(cmd, &store, "folder of the store")
	cmd.Flags().StringVar(&to, "to", "", "where to: s3://BUCKET[/PREFIX], or a folder")
	cmd.Flags().BoolVar(&check, "check", false, "read what is there, and replace what has wrong bytes")
	required(cmd, "to")
	return cmd
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
	if _, err := zimage.OpenStore(to); err != nil {
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

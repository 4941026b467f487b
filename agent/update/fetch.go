// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/zimage"
)

// Fetch brings the image of a release to path, chunk by chunk where the release
// binds a list of chunks. A list that is not of its image is the release's own
// fault, and ErrUnfit.
func Fetch(ctx context.Context, f *zimage.Fetcher, t *ledger.Target, path string, room func(bytes int64) error) error {
	if t.Chunks == "" {
		_, err := f.BlobWithin(ctx, t.Image.Digest, path, room)
		return err
	}
	_, err := f.BlobByChunks(ctx, t.Image.Digest, t.Chunks, t.Image.Size, path, room)
	if errors.Is(err, zimage.ErrList) {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	return err
}

// Room is for Fetch: an image is as large as was signed.
func Room(size int64, more func(bytes int64) error) func(int64) error {
	asked := int64(0)
	return func(n int64) error {
		if asked += n; n > size {
			return fmt.Errorf("%w: a mirror sends %d bytes, the release has %d", zimage.ErrNoRoom, n, size)
		}
		return more(n)
	}
}

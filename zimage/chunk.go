// SPDX-License-Identifier: Apache-2.0

package zimage

import "context"

// Check holds bytes against a chunk's id and size.
func (c Chunk) Check(plain []byte) error { return checkChunk(plain, c) }

// Chunks gives a function that gets single chunks from the mirrors, checked.
// What it learns of the mirrors it keeps from call to call; several
// goroutines may call it at once.
func (f *Fetcher) Chunks() (func(ctx context.Context, c Chunk) ([]byte, error), error) {
	s, err := f.session()
	if err != nil {
		return nil, err
	}
	return s.chunk, nil
}

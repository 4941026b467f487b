// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// NewestBlock asks every ledger for the newest block that its server has decided,
// and gives the highest answer: 0 if none of them makes blocks, as mirrors and
// folders do not. Nothing proves it. The log does not have it either: blocks
// without entries leave nothing there.
func (c *Client) NewestBlock(ctx context.Context) int64 {
	var newest int64
	for _, s := range c.sources {
		web, ok := s.(*httpSource)
		if !ok {
			continue
		}
		block, err := web.newestBlock(ctx)
		if err != nil {
			c.cfg.OnRefused(s.String(), err)
		}
		newest = max(newest, block)
	}
	return newest
}

func (h *httpSource) newestBlock(ctx context.Context) (_ int64, err error) {
	// A server that stands still says so with 503, and knows its blocks.
	status, _, body, err := h.do(ctx, http.MethodGet, "healthz", nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	b, err := h.all("healthz", body, 64<<10)
	if err != nil {
		return 0, err
	}
	var r healthReply
	if err := json.Unmarshal(b, &r); err != nil || r.Block < 0 {
		return 0, fmt.Errorf("%w: %s/healthz: HTTP status %d without the answer of a ledger", ErrUnreachable, h, status)
	}
	return r.Block, nil
}

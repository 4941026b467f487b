// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Taker is a ledger that takes entries.
type Taker struct {
	URL    string
	Submit func(ctx context.Context, entry []byte) (Receipt, error)
}

// ErrWord says that every ledger refuses an entry that the verified state allows,
// for a reason that only they know.
var ErrWord = errors.New("every ledger that was asked refuses the entry")

// word is a refusal that is no more than what a ledger says. Nobody is reached who
// would decide.
type word struct {
	url  string
	said *Refused
}

func (w *word) Error() string {
	return fmt.Sprintf("%s refuses what the verified state allows: %v", w.url, w.said)
}

func (w *word) Is(target error) bool { return target == ErrUnreachable }

// SubmitTo hands an entry to one ledger after the other, until one takes it. What a
// ledger answers is its word and no more: a refusal counts only when own says so too,
// which is what the verified state says of the entry, else the next ledger is asked.
// An entry that stands there already has its receipt, without a proof. Who has no
// verified state (own is nil) has nothing but their words: a refusal counts when
// nobody takes the entry.
func SubmitTo(ctx context.Context, takers []Taker, entry []byte, own func() error) (Receipt, error) {
	var all []error
	var first *Refused
	words := 0
	for _, t := range takers {
		r, err := t.Submit(ctx, entry)
		if err == nil {
			return r, nil
		}
		var refused *Refused
		// A receipt that is not believed can have a refusal inside.
		if errors.As(err, &refused) && !errors.Is(err, ErrForged) {
			if own != nil {
				if r, err, counts := decided(own()); counts {
					return r, err
				}
				err = &word{t.URL, refused}
			} else if first == nil {
				first = refused
			}
			words++
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	err := errors.Join(all...)
	switch {
	case first != nil:
		return Receipt{}, first
	case words > 0 && words == len(takers):
		err = fmt.Errorf("%w: %w", ErrWord, err)
	}
	return Receipt{}, err
}

// decided is what the own state says of an entry, if that is a refusal.
func decided(own error) (Receipt, error, bool) {
	var refused *Refused
	if !errors.As(own, &refused) {
		return Receipt{}, nil, false
	}
	if refused.Index >= 0 { // it stands there already
		return Receipt{Index: refused.Index}, nil, true
	}
	return Receipt{}, own, true
}

// Takers are the ledgers of a client, each alone. The receipt of each is a proof that
// the log has the entry, and is checked: one that does not hold is an ErrForged,
// whatever the server says.
func (c *Client) Takers() []Taker {
	all := make([]Taker, len(c.sources))
	for i, s := range c.sources {
		all[i] = Taker{s.String(), func(ctx context.Context, entry []byte) (Receipt, error) {
			r, err := s.submit(ctx, entry)
			if err == nil {
				err = c.checkReceipt(ctx, s, r, entry)
			}
			if err != nil {
				return Receipt{}, err
			}
			return r, nil
		}}
	}
	return all
}

// Submit hands an entry to the first ledger that takes it, by the rule of SubmitTo
// and the state of the last Sync, if there was one. A refusal is a *Refused; the same
// entry again gives the same receipt.
func (c *Client) Submit(ctx context.Context, entry []byte) (Receipt, error) {
	takers := c.Takers()
	for i, t := range takers {
		takers[i].Submit = func(ctx context.Context, entry []byte) (Receipt, error) {
			r, err := t.Submit(ctx, entry)
			if errors.Is(err, ErrForged) {
				c.cfg.OnRefused(t.URL, err)
			}
			return r, err
		}
	}
	if c.State().Size() == 0 {
		return SubmitTo(ctx, takers, entry, nil)
	}
	own := func() error { return c.State().Check(time.Now().UnixMilli(), entry) }
	r, err := SubmitTo(ctx, takers, entry, own)
	var said *word
	if errors.As(err, &said) && ctx.Err() == nil && c.Sync(ctx) == nil {
		// The log may have gone on, to where it refuses the entry, or has it.
		if r, err, counts := decided(own()); counts {
			return r, err
		}
	}
	return r, err
}

// Submit hands an entry to one server. It needs no root of trust, and so it
// proves nothing: the receipt is what the server says.
func Submit(ctx context.Context, url string, web *http.Client, entry []byte) (Receipt, error) {
	if web == nil {
		web = http.DefaultClient
	}
	usual := usualLimits()
	s, err := openSource(url, web, &usual)
	if err != nil {
		return Receipt{}, err
	}
	return s.submit(ctx, entry)
}

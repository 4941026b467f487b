// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// packGrace is how long nothing else is fetched while nobody has said yet whether
// there is a start pack: what that brings need not come twice.
const packGrace = 2 * time.Second

// errNoNeed ends a pack of which everything is here.
var errNoNeed = errors.New("all of it is here")

// pipe is one end of a pipe whose other end may never say anything.
type pipe struct{ *os.File }

// pipeStall is longer than the agent waits for a mirror.
const pipeStall = 10 * time.Second

// packPipe takes up what the agent sends of a pack.
func packPipe() (pipe, error) {
	err := unix.SetNonblock(PackFD, true) // or a read could not be ended
	return pipe{os.NewFile(PackFD, "pack")}, err
}

func (p pipe) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(pipeStall)); err != nil {
		return 0, err
	}
	return p.File.Read(b)
}

// startPack lays the blocks of the image's start pack into the disk, as they come.
// Each was held against the verity root. A guest may start with the first of them:
// its reads wait for the others. begun is called when it is known what the pack
// brings, or that it brings nothing. Nobody is asked for a pack of an image of which
// the node has the most.
func (p *process) startPack(ctx context.Context, begun func()) {
	defer begun()
	defer p.disk.Packed()
	sent, err := packPipe()
	if err != nil { // mirrors are asked as if none had been
		fmt.Fprintln(os.Stderr, "imaged: what was asked for ahead:", err)
	}
	defer sent.Close() // it was read only
	select {
	case <-p.disk.Whole():
		return
	default:
	}
	p.mu.Lock()
	near := p.lent.most(p.bits)
	p.mu.Unlock()
	if near { // of a pack most would be sent for nothing
		return
	}
	blocks := int64(0)
	err = p.fetch.StartPackAfter(ctx, p.cfg.Manifest, p.cfg.ID, zimage.Sent{Mirror: p.cfg.Asked, From: countedBody{sent, &p.wire}}, pack.Reading{
		Index: func(l extent.List) error {
			if p.disk.Expect(l) == 0 {
				return errNoNeed
			}
			begun()
			return nil
		},
		Block: func(k int64, b []byte) error {
			if err := p.disk.Put(k, b); err != nil {
				return err
			}
			blocks++
			p.mu.Lock()
			defer p.mu.Unlock()
			p.start()
			return nil
		},
	})
	if errors.Is(err, zimage.ErrMissing) || errors.Is(err, errNoNeed) {
		return // as it is of most images, and of most second starts
	}
	e := Event{Event: Packed, Blocks: blocks, Bytes: p.wire.Load()}
	if err != nil {
		e.Detail = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say(e)
}

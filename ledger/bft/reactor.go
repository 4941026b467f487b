// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/p2p/conn"
	"github.com/cosmos/gogoproto/types"
)

// channel is ours on the validators' mesh; CometBFT's own are below 0x70.
const channel = 0x7a

// reactor carries statements between the validators, over the connections
// that CometBFT has anyway, authenticated by its node keys.
type reactor struct {
	p2p.BaseReactor
	hear  func(from string, statement []byte)
	hello func() []byte // what to tell a peer that just came, or nil
	mute  bool
}

func newReactor(hear func(string, []byte), hello func() []byte) *reactor {
	r := &reactor{hear: hear, hello: hello}
	r.BaseReactor = *p2p.NewBaseReactor("zos", r)
	return r
}

// GetChannels implements p2p.Reactor.
func (r *reactor) GetChannels() []*conn.ChannelDescriptor {
	return []*conn.ChannelDescriptor{{
		ID: channel, Priority: 5, SendQueueCapacity: 64, RecvMessageCapacity: 2 * maxStatement, MessageType: &types.BytesValue{},
	}}
}

// AddPeer implements p2p.Reactor.
func (r *reactor) AddPeer(peer p2p.Peer) {
	if b := r.hello(); b != nil && !r.mute {
		peer.TrySend(envelope(b))
	}
}

// Receive implements p2p.Reactor.
func (r *reactor) Receive(e p2p.Envelope) {
	if b, ok := e.Message.(*types.BytesValue); ok {
		r.hear(string(e.Src.ID()), b.Value)
	}
}

// broadcast tells every peer what statement says, which it asks if there is any.
// One whose queue is full misses it; the next statement says it again.
func (r *reactor) broadcast(statement func() []byte) {
	if r.Switch == nil || r.mute {
		return
	}
	peers := r.Switch.Peers().List()
	if len(peers) == 0 {
		return
	}
	b := statement()
	if b == nil {
		return
	}
	for _, peer := range peers {
		peer.TrySend(envelope(b))
	}
}

func envelope(b []byte) p2p.Envelope {
	return p2p.Envelope{ChannelID: channel, Message: &types.BytesValue{Value: b}}
}

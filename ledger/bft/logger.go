// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"log/slog"
	"slices"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// logger hands CometBFT's lines to slog, one level down: what it calls
// information is news for its developers only. Of the network it calls every
// connection that ends an error; who is missing is said by Engine.look.
type logger struct {
	to  *slog.Logger
	net bool
}

func (l logger) Debug(string, ...any)       {}
func (l logger) Info(msg string, kv ...any) { l.to.Debug(msg, append(kv, "part", "comet")...) }

func (l logger) Error(msg string, kv ...any) {
	if l.net {
		l.Info(msg, kv...)
		return
	}
	l.to.Warn(msg, append(kv, "part", "comet")...)
}

func (l logger) With(kv ...any) cmtlog.Logger {
	i := slices.Index(kv, any("module"))
	net := l.net
	if i >= 0 && i+1 < len(kv) {
		net = slices.Contains([]any{"p2p", "blocksync", "pex"}, kv[i+1])
	}
	return logger{l.to.With(kv...), net}
}

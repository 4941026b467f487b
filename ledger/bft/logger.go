// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"log/slog"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// logger hands CometBFT's lines to slog, one level down: what it calls
// information is news for its developers only.
type logger struct{ to *slog.Logger }

func (l logger) Debug(string, ...any)         {}
func (l logger) Info(msg string, kv ...any)   { l.to.Debug(msg, append(kv, "part", "comet")...) }
func (l logger) Error(msg string, kv ...any)  { l.to.Warn(msg, append(kv, "part", "comet")...) }
func (l logger) With(kv ...any) cmtlog.Logger { return logger{l.to.With(kv...)} }

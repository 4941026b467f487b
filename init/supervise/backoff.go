// SPDX-License-Identifier: Apache-2.0

package supervise

import "time"

const (
	firstWait = time.Second
	lastWait  = time.Minute
	// Well is how long a child has to run for its earlier ends to be forgotten.
	Well = time.Minute
)

// Next is the wait before the next start: one second, doubling to a minute;
// a child that ran well begins anew.
func Next(previous, ran time.Duration) time.Duration {
	if previous == 0 || ran >= Well {
		return firstWait
	}
	return min(2*previous, lastWait)
}

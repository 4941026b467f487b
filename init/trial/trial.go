// SPDX-License-Identifier: Apache-2.0

// Package trial watches over an image that nobody has blessed yet. The loader
// counts such a start before it hands over; the agent ends the trial, one way or
// the other (agent/update). What is left for init is an agent that can do
// neither: one that ends again and again, or never says anything. The machine
// then starts again, and when no try is left, with the image before.
package trial

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// counted is systemd-boot's variable with the file that it counts; it is there
// for such a start only.
const counted = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

const (
	// Limit is how long the agent has for its verdict; its own limit is shorter.
	Limit = 15 * time.Minute
	// Starts is how often it may be started meanwhile.
	Starts = 5
)

// Begun says whether this start is a trial.
func Begun(efivars string) bool {
	_, err := os.Stat(filepath.Join(efivars, counted))
	return err == nil
}

// Over says why the trial is lost, "" while it is not: starts are those of the
// agent, since is the time from init's own start on.
func Over(starts int, since time.Duration) string {
	switch {
	case starts > Starts:
		return fmt.Sprintf("the agent ended %d times", starts-1)
	case since > Limit:
		return fmt.Sprintf("the agent has no verdict after %s", Limit)
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

// Command standin takes the agent's place in tests of init: it behaves as a
// file in the initramfs says, so that init is tested with an agent that fails,
// obeys, or wants the machine to start again. As a hypervisor it only tells its
// version. No image of ours contains it.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// behaviour is the file that says how to behave.
const behaviour = "/etc/zos/standin"

// beat is the distance of heartbeats; init's patience is much longer.
const beat = 5 * time.Second

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("standin")
		return
	}
	b, err := os.ReadFile(behaviour)
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(2)
	}
	line := os.NewFile(3, "init")
	say := func(word string) {
		if _, err := line.Write([]byte(word)); err != nil {
			fmt.Fprintln(os.Stderr, "standin: say", word, "to init:", err)
			os.Exit(3)
		}
	}
	fmt.Println("standin: started")
	switch how := strings.TrimSpace(string(b)); how {
	case "crash":
		fmt.Fprintln(os.Stderr, "standin: the reason is that I was told to")
		os.Exit(7)
	case "panic":
		panic("standin: a panic on purpose")
	case "hang":
		hang()
	case "reboot":
		say("reboot")
		hang()
	case "obey":
		go func() {
			for {
				say("alive")
				time.Sleep(beat)
			}
		}()
		word := make([]byte, 64)
		for {
			n, err := line.Read(word)
			if err != nil {
				fmt.Fprintln(os.Stderr, "standin: listen to init:", err)
				os.Exit(4)
			}
			fmt.Printf("standin: init says %s\n", word[:n])
			if string(word[:n]) == "shutdown" {
				fmt.Println("standin: guests have ended")
				say("poweroff")
			}
		}
	default:
		fmt.Fprintf(os.Stderr, "standin: no behaviour %q\n", how)
		os.Exit(5)
	}
}

// hang never returns. Go's runtime ends a program that only waits, unless it
// waits for time.
func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"
)

// problem is an error that tells an operator what failed, what was expected
// and what to do.
type problem struct {
	what, expected, todo string
	err                  error
}

func (p *problem) Error() string {
	if p.err == nil {
		return p.what
	}
	return p.what + ": " + p.err.Error()
}

func (p *problem) Unwrap() error { return p.err }

// steps runs named steps one after the other and keeps their times.
type steps struct {
	out   io.Writer
	total int
	done  []timed
}

type timed struct {
	Name string        `json:"name"`
	Took time.Duration `json:"tookNs"`
}

// do runs one step. Notes that the step returns are printed under its line.
func (s *steps) do(ctx context.Context, name string, f func(ctx context.Context) (notes []string, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "[%2d/%d] %s\n", len(s.done)+1, s.total, name)
	start := time.Now()
	notes, err := f(ctx)
	took := time.Since(start)
	s.done = append(s.done, timed{name, took})
	for _, n := range notes {
		for _, line := range strings.Split(strings.TrimRight(n, "\n"), "\n") {
			fmt.Fprintf(s.out, "        %s\n", line)
		}
	}
	if err != nil {
		return fmt.Errorf("step %d, %s: %w", len(s.done), name, err)
	}
	fmt.Fprintf(s.out, "        done in %.1f s\n", took.Seconds())
	return nil
}

// waitEvery is how often a step that waits says so.
const waitEvery = 15 * time.Second

// waits says now and then what a step waits for, for how long it has, and what
// was heard last; until stop is called.
func (s *steps) waits(what string, last func() string) (stop func()) {
	start, quit, done := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(waitEvery)
		defer every.Stop()
		for {
			select {
			case <-quit:
				return
			case <-every.C:
				fmt.Fprintf(s.out, "        waiting for %s, %.0f s so far; last: %s\n", what, time.Since(start).Seconds(), strings.TrimSpace(last()))
			}
		}
	}()
	return func() { close(quit); <-done }
}

// explain prints a failure the way an operator can use it.
func explain(w io.Writer, err error) {
	fmt.Fprintf(w, "\nFAILED  %v\n", err)
	var p *problem
	if !errors.As(err, &p) {
		p = ordinary(err)
	}
	fmt.Fprintf(w, "expected  %s\n", p.expected)
	fmt.Fprintf(w, "do        %s\n", p.todo)
}

// ordinary is what can be said of an error that no step foresaw.
func ordinary(err error) *problem {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &problem{expected: "a folder that this user may write to", todo: "see who owns the path above, and whether it or its file system was made read-only; then run it again"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &problem{expected: "room for the images: 3 GB", todo: "make room, or choose another folder (build/bin/demo -dir DIR)"}
	case errors.Is(err, fs.ErrNotExist):
		return &problem{expected: "the files that the steps before have written", todo: "run it again from the start; if something removes files below build/, stop that first"}
	}
	return &problem{expected: "a step that succeeds", todo: "run it again; if it fails once more, this is a fault of zos: keep build/run and report it"}
}

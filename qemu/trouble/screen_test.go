// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// picture is a screenshot, cut into the cells of a text screen.
type picture struct {
	cols, rows int
	cells      []string // what each looks like
}

// cellHigh and the two widths: VGA's text mode has 720 pixels for 80 columns,
// a frame buffer has letters of 8.
const cellHigh = 16

// shot takes one.
func (n *node) shot() picture {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "screen.ppm")
	if err := n.Screenshot(deadline(n.t), file); err != nil {
		n.t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	p, err := cut(b)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// cut reads a portable pixmap.
func cut(b []byte) (picture, error) {
	var width, height, depth int
	head := bytes.SplitN(b, []byte("\n"), 4)
	if len(head) != 4 || string(head[0]) != "P6" {
		return picture{}, fmt.Errorf("not a picture: %.20q", b)
	}
	if _, err := fmt.Sscanf(string(head[1])+" "+string(head[2]), "%d %d %d", &width, &height, &depth); err != nil || depth != 255 {
		return picture{}, fmt.Errorf("picture of %q, %q: %v", head[1], head[2], err)
	}
	pixels := head[3]
	if len(pixels) < 3*width*height {
		return picture{}, fmt.Errorf("%d bytes for %d × %d", len(pixels), width, height)
	}
	wide := 8
	if width == 720 {
		wide = 9
	}
	p := picture{cols: width / wide, rows: height / cellHigh}
	for row := range p.rows {
		for col := range p.cols {
			var cell []byte
			for y := range cellHigh {
				for x := range wide {
					at := 3 * ((row*cellHigh+y)*width + col*wide + x)
					bit := byte('.')
					if int(pixels[at])+int(pixels[at+1])+int(pixels[at+2]) > 3*64 {
						bit = '#'
					}
					cell = append(cell, bit)
				}
			}
			p.cells = append(p.cells, string(cell))
		}
	}
	return p, nil
}

// letters are what a screen's font looks like.
type letters map[string]rune

// font learns it: every letter is written onto a terminal that nobody uses.
func (n *node) font() letters {
	n.t.Helper()
	const terminal, first, last = 3, '!', '~'
	var all strings.Builder
	for r := first; r <= last; r++ {
		all.WriteRune(r)
		if (r-first)%40 == 39 {
			all.WriteString("\r\n")
		}
	}
	n.do(map[string]any{"do": "write", "file": fmt.Sprintf("/dev/tty%d", terminal), "text": "\x1b[H\x1b[2J\x1b[?25l" + all.String()})
	n.do(map[string]any{"do": "screen", "size": terminal})
	p := n.shot()
	n.do(map[string]any{"do": "screen", "size": 2})
	l := letters{}
	for r := first; r <= last; r++ {
		i := int(r - first)
		l[p.cells[i/40*p.cols+i%40]] = r
	}
	if len(l) != last-first+1 {
		n.t.Fatalf("the screen shows only %d different letters of %d", len(l), last-first+1)
	}
	return l
}

// read turns a picture into text; what is no letter becomes a space.
func (l letters) read(p picture) string {
	var b strings.Builder
	for row := range p.rows {
		for col := range p.cols {
			r, ok := l[p.cells[row*p.cols+col]]
			if !ok {
				r = ' '
			}
			b.WriteRune(r)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestCut(t *testing.T) {
	// 16 × 16 white pixels on the left half of a black picture of 16 × 16: two cells.
	b := []byte("P6\n16 16\n255\n")
	for range 16 {
		for x := range 16 {
			v := byte(0)
			if x < 8 {
				v = 255
			}
			b = append(b, v, v, v)
		}
	}
	p, err := cut(b)
	if err != nil || p.cols != 2 || p.rows != 1 || strings.Trim(p.cells[0], "#") != "" || strings.Trim(p.cells[1], ".") != "" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "P5\n1 1\n255\n.", "P6\n9 9\n255\nshort"} {
		if _, err := cut([]byte(bad)); err == nil {
			t.Errorf("%q is no picture", bad)
		}
	}
}

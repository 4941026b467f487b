// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// server is an HTTP server on loopback that can be taken away and brought
// back on the same port.
type server struct {
	t       *testing.T
	addr    string
	handler http.Handler

	mu  sync.Mutex
	srv *http.Server
}

func newServer(t *testing.T, h http.Handler) *server {
	s := &server{t: t, addr: "127.0.0.1:0", handler: h}
	s.up()
	t.Cleanup(s.down)
	return s
}

func (s *server) up() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		return
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatalf("listen again: %v", err)
	}
	s.addr = l.Addr().String()
	s.srv = &http.Server{Handler: s.handler}
	go s.srv.Serve(l)
}

// down closes the port and every connection: the next dial is refused.
func (s *server) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return
	}
	if err := s.srv.Close(); err != nil {
		s.t.Errorf("close server: %v", err)
	}
	s.srv = nil
}

// inside is the server's URL as the node sees it.
func (s *server) inside() string {
	return "http://" + strings.Replace(s.addr, "127.0.0.1", "10.0.2.2", 1)
}

// outside is the server's URL on this machine.
func (s *server) outside() string { return "http://" + s.addr }

// gate stands before the ledger and can lie about it.
type gate struct {
	*server
	proxy http.Handler

	mu         sync.Mutex
	dir        http.Handler // another log to serve instead, or nil
	checkpoint []byte       // to serve instead of the ledger's own, or nil
	lies       int          // how often a lie was served
}

func newGate(t *testing.T, ledger string) *gate {
	u, err := url.Parse(ledger)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
	g := &gate{proxy: proxy}
	g.server = newServer(t, g)
	return g
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	checkpoint, dir := g.checkpoint, g.dir
	if r.Method == http.MethodGet && (dir != nil || checkpoint != nil && r.URL.Path == "/checkpoint") {
		g.lies++
	}
	g.mu.Unlock()
	switch {
	case r.Method != http.MethodGet:
		g.proxy.ServeHTTP(w, r)
	case checkpoint != nil && r.URL.Path == "/checkpoint":
		w.Write(checkpoint)
	case dir != nil:
		dir.ServeHTTP(w, r)
	default:
		g.proxy.ServeHTTP(w, r)
	}
}

// lie serves a checkpoint, or a whole other log, instead of the ledger's.
func (g *gate) lie(checkpoint []byte, dir http.Handler) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkpoint, g.dir, g.lies = checkpoint, dir, 0
}

// truth ends the lies and says how often one was served.
func (g *gate) truth() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkpoint, g.dir = nil, nil
	return g.lies
}

// get fetches from the ledger itself.
func get(t *testing.T, url string) []byte {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, r.Status, err)
	}
	return b
}

// mirror serves a store, with some of its files altered.
type mirror struct {
	*server
	good http.Handler

	mu     sync.Mutex
	alter  map[string]int // parts of paths whose content gets one byte flipped, and how often it was served
	cut    string         // path suffix at which the mirror dies in the middle of the answer
	cuts   int
	served map[string]int // path to how often it was asked for
	ranges int            // how many requests asked for the rest of a file
}

func newMirror(t *testing.T, store http.Handler) *mirror {
	m := &mirror{good: store, alter: map[string]int{}, served: map[string]int{}}
	m.server = newServer(t, m)
	return m
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.served[r.URL.Path]++
	if r.Header.Get("Range") != "" {
		m.ranges++
	}
	altered, cut := false, m.cut != "" && strings.Contains(r.URL.Path, m.cut)
	for part := range m.alter {
		if strings.Contains(r.URL.Path, part) {
			altered = true
			m.alter[part]++
		}
	}
	if cut {
		m.cuts++
		m.cut = ""
	}
	m.mu.Unlock()
	if !altered && !cut {
		m.good.ServeHTTP(w, r)
		return
	}
	rec := &recorder{header: http.Header{}}
	m.good.ServeHTTP(rec, r)
	body := rec.body
	for k, v := range rec.header {
		w.Header()[k] = v
	}
	if rec.status != 0 {
		w.WriteHeader(rec.status)
	}
	if cut {
		w.Write(body[:len(body)/2])
		go m.down() // the whole mirror is gone, not only this answer
		panic(http.ErrAbortHandler)
	}
	if len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	w.Write(body)
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { r.body = append(r.body, b...); return len(b), nil }

// poison alters every answer whose path contains part; the returned function
// ends that and says how often it was served.
func (m *mirror) poison(part string) func() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alter[part] = 0
	return func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		served := m.alter[part]
		delete(m.alter, part)
		return served
	}
}

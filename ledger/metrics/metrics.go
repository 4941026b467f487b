// SPDX-License-Identifier: Apache-2.0

// Package metrics shows what a ledger server or a mirror does as Prometheus
// metrics, all of which begin with zos_ledger_. They are served on an address
// of their own: what they say is for the operator, not for readers of the log.
// packaging/grafana/ledger.json is a dashboard of them, docs/ledger.md says
// which of them to be woken for.
package metrics

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zos-node/zos/ledger"
)

// Value is a gauge that is read when somebody asks.
type Value struct {
	Name, Help string
	Read       func() float64
}

// Set is the metrics of one server.
type Set struct {
	registry *prometheus.Registry
	submits  *prometheus.HistogramVec
}

// New makes a set of values beside those of the process itself.
func New(values []Value) *Set {
	s := &Set{registry: prometheus.NewRegistry(), submits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "zos_ledger_submit_seconds", Help: "Time from a submission to its answer, by result: ok, refused, quota, busy, failed.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"result"})}
	for _, result := range []string{"ok", "refused", "quota", "busy", "failed"} {
		s.submits.WithLabelValues(result)
	}
	s.registry.MustRegister(s.submits, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, v := range values {
		s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zos_ledger_" + v.Name, Help: v.Help}, v.Read))
	}
	return s
}

// Handler serves GET /metrics.
func (s *Set) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

// Submitter measures what passes through another one.
func (s *Set) Submitter(next ledger.Submitter) ledger.Submitter { return submitter{next, s} }

type submitter struct {
	ledger.Submitter
	set *Set
}

// Submit implements ledger.Submitter.
func (m submitter) Submit(ctx context.Context, entry []byte) (ledger.Receipt, error) {
	start := time.Now()
	r, err := m.Submitter.Submit(ctx, entry)
	m.set.submits.WithLabelValues(result(err)).Observe(time.Since(start).Seconds())
	return r, err
}

// NewestBlock implements ledger.Orderer.
func (m submitter) NewestBlock() int64 {
	if o, ok := m.Submitter.(ledger.Orderer); ok {
		return o.NewestBlock()
	}
	return 0
}

func result(err error) string {
	var refused *ledger.Refused
	var busy *ledger.Busy
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &busy) && busy.Quota:
		return "quota"
	case errors.As(err, &busy):
		return "busy"
	}
	return "failed"
}

// Mirror are the values of a mirror, under the same names as a server's.
func Mirror(m *ledger.Mirror) []Value {
	status := func(ok func(ledger.LedgerStatus) bool) func() float64 {
		return func() (n float64) {
			for _, s := range m.Client().Ledgers() {
				if ok(s) {
					n++
				}
			}
			return n
		}
	}
	return []Value{
		{"published_entries", "Entries in the copy.", func() float64 { return float64(m.Client().Checkpoint().N) }},
		{"time_seconds", "Ledger time, Unix seconds.", func() float64 { return float64(m.Client().State().TimeMs()) / 1000 }},
		{"sources_in_order", "Ledgers that were in order, if perhaps behind, when last looked at.", status(func(s ledger.LedgerStatus) bool { return s.Error == "" })},
		{"sources_refused", "Ledgers that were forged, forked, rolled back or not reached.", status(func(s ledger.LedgerStatus) bool { return s.Error != "" })},
		{"healthy", "1 while the copy keeps up.", func() float64 {
			if m.Health() != nil {
				return 0
			}
			return 1
		}},
	}
}

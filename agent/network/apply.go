// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// String writes the ruleset in the language of nft(8).
func (r Ruleset) String() string {
	var b strings.Builder
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "table %s %s {\n", t.Family, TableName)
		for _, c := range t.Chains {
			policy := "accept"
			if c.Drop {
				policy = "drop"
			}
			fmt.Fprintf(&b, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy %s;\n", c.Name, c.Type, c.Hook, c.Priority, policy)
			for _, rule := range c.Rules {
				fmt.Fprintf(&b, "\t\t%s\n", rule)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (r Rule) String() string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, m.String())
	}
	return strings.Join(append(words, r.Verdict.String()), " ")
}

func (v Verdict) String() string {
	if v.Kind == "dnat" {
		return "dnat ip to " + v.To.String()
	}
	return v.Kind
}

func (v Verdict) exprs() ([]expr.Any, error) {
	switch v.Kind {
	case "accept":
		return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}, nil
	case "drop":
		return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}, nil
	case "masquerade":
		return []expr.Any{&expr.Masq{}}, nil
	case "dnat":
		a := v.To.Addr().As4()
		return []expr.Any{
			&expr.Immediate{Register: 1, Data: a[:]},
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(v.To.Port())},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2, Specified: true},
		}, nil
	}
	return nil, fmt.Errorf("no verdict %q", v.Kind)
}

// Apply makes the kernel's two tables what r says, in one transaction: a
// packet meets the old rules or the new ones, never none.
func (r Ruleset) Apply() error { return r.apply() }

func (r Ruleset) apply(opts ...nftables.ConnOption) error {
	conn, err := nftables.New(opts...)
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, t := range r.Tables {
		if err := queue(conn, t); err != nil {
			return fmt.Errorf("table %s %s: %w", t.Family, TableName, err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("put packet filter rules in place: %w", err)
	}
	return nil
}

func queue(conn *nftables.Conn, t Table) error {
	family, ok := map[string]nftables.TableFamily{"inet": nftables.TableFamilyINet, "bridge": nftables.TableFamilyBridge}[t.Family]
	if !ok {
		return fmt.Errorf("no family %q", t.Family)
	}
	table := &nftables.Table{Family: family, Name: TableName}
	// Added first, so that deleting it is right also when there was none.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range t.Chains {
		hook, ok := hooks()[c.Hook]
		if !ok {
			return fmt.Errorf("chain %s: no hook %q", c.Name, c.Hook)
		}
		policy := nftables.ChainPolicyAccept
		if c.Drop {
			policy = nftables.ChainPolicyDrop
		}
		chain := conn.AddChain(&nftables.Chain{Name: c.Name, Table: table, Type: nftables.ChainType(c.Type),
			Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority)), Policy: &policy})
		for _, rule := range c.Rules {
			var exprs []expr.Any
			for _, m := range rule.Matches {
				exprs = append(exprs, m.exprs()...)
			}
			end, err := rule.Verdict.exprs()
			if err != nil {
				return fmt.Errorf("chain %s: %w", c.Name, err)
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, end...)})
		}
	}
	return nil
}

func hooks() map[string]*nftables.ChainHook {
	// inet and bridge number their hooks alike.
	return map[string]*nftables.ChainHook{
		"prerouting":  nftables.ChainHookPrerouting,
		"input":       nftables.ChainHookInput,
		"forward":     nftables.ChainHookForward,
		"postrouting": nftables.ChainHookPostrouting,
	}
}

# SPDX-License-Identifier: Apache-2.0
#
# Reads the output of `go test -v` and prints for each test that failed what
# it said itself: its own "file_test.go:12: …" blocks, which stand before its
# "--- FAIL" line and may be mixed with those of others. Of a long block, such
# as the end of a console, the first line and the last ones. Then panics and
# packages that did not build.

BEGIN { HEAD = 12; TAIL = 30; PANIC = 40 }

# A test's lines follow "=== RUN" or "=== NAME" until another one speaks.
/^=== [A-Z]+ / { block(); test = $3; panicking = 0; next }

/^ *--- (PASS|FAIL|SKIP|BENCH): / {
	block()
	test = ""
	if ($2 == "FAIL:") { order[++failed] = $3; took[$3] = $4 }
	next
}

# A package has ended. Its tests' names may come again in another one.
/^(ok|FAIL|PASS|\?)([ \t]|$)/ {
	block()
	panicking = 0
	if (/^FAIL[ \t]/) report($2)
	if (/^(ok|FAIL|\?)[ \t]/) forget()
	next
}

/^(panic: |fatal error: |signal: |# )/ { block(); panicking = PANIC }
panicking > 0 { other[++others] = $0; panicking--; next }

/^ *[A-Za-z0-9_]+\.go:[0-9]+: / { block(); lines[n = 1] = $0; next }
n > 0 && /^        / { lines[++n] = $0; next }
{ block() }

END { block(); if (failed + others > 0) report("") }

# block keeps the block that has ended for its test.
function block(   i, text) {
	if (n > 0 && test != "") {
		text = ""
		for (i = 1; i <= n; i++) {
			if (n > HEAD + TAIL && i > HEAD && i <= n - TAIL) {
				if (i == HEAD + 1) text = text "        [… " (n - HEAD - TAIL) " lines]\n"
				continue
			}
			text = text lines[i] "\n"
		}
		said[test] = said[test] text
	}
	n = 0
}

function report(package,   i, name) {
	if (failed + others > 0) print "== " (package == "" ? "a package that did not end" : package)
	for (i = 1; i <= failed; i++) {
		name = order[i]
		print "--- FAIL: " name " " took[name]
		printf "%s", said[name]
	}
	for (i = 1; i <= others; i++) print other[i]
}

function forget() {
	split("", order); split("", took); split("", said); split("", other)
	failed = 0; others = 0; test = ""
}

// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/zos-node/zos/ledger/tiles"
)

// Reach says whether any of the ledgers answers with a checkpoint of the log
// of that name: the test of an uplink. It is no check, whoever is reached may
// lie; that is what Sync is for. But it tells our log from a stranger's page.
func Reach(ctx context.Context, web *http.Client, log string, ledgers []string) error {
	var errs []error
	for _, url := range ledgers {
		err := reach(ctx, web, log, url)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", url, err))
	}
	return errors.Join(errs...)
}

func reach(ctx context.Context, web *http.Client, log, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/checkpoint", nil)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, tiles.MaxCheckpoint))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(string(b), log+"\n") {
		return fmt.Errorf("answers %s, no checkpoint of %s", res.Status, log)
	}
	return nil
}

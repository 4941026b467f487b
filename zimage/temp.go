// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"errors"
	"fmt"
	"os"
)

// unnamed makes a file without a name: it is gone when it is closed, or when
// the program dies.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "work-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("temporary file: %w", err), f.Close())
	}
	return f, nil
}

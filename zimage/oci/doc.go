// SPDX-License-Identifier: Apache-2.0

// Package oci opens OCI images for zimage.Convert: an OCI layout folder, an
// archive that `docker save` wrote, or a registry.
//
//	oci:DIR                 the only image for the platform in an OCI layout
//	oci:DIR@sha256:…        one manifest, or index, of it
//	docker-archive:FILE     an uncompressed archive with one image
//	HOST/NAME@sha256:…      a registry; credentials are docker's
//
// A tag is not a name of an image here: it means something else tomorrow.
// Resolve tells what it means today.
//
// The package is apart from zimage so that a node, which only fetches
// finished images, has no registry client linked into it.
package oci

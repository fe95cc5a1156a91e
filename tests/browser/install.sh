#!/bin/sh
# Debian's chromium for the browser tests, where it can be had: as root, with apt. Never fails;
# without a browser those tests say why they were skipped.
command -v chromium >/dev/null 2>&1 && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "browser tests will be skipped: chromium is not installed (as root: apt-get install chromium)"
	exit 0
fi
{ apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 ||
	echo "browser tests will be skipped: apt-get could not install chromium"
exit 0

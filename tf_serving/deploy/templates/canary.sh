#!/bin/sh
# Which version of @MODEL@ is stable, and which is on trial. TensorFlow Serving reads the change within 10 seconds.
#
#   sh canary.sh status           the labels now
#   sh canary.sh try VERSION      serve VERSION as "canary" beside the stable one
#   sh canary.sh promote          make the canary the stable one
#   sh canary.sh rollback         drop the canary
#
# Clients choose: /v1/models/@MODEL@/labels/stable:predict or .../labels/canary:predict. A request that names neither
# gets the newest version that is served, the canary while there is one.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
config="$here/serving/models.config"

version_of() {
  sed -n "s/.*key: \"$1\" value: \([0-9]*\) .*/\1/p" "$config"
}

write() {
  if [ -n "${2:-}" ]; then
    policy="versions: $1 versions: $2"
  else
    policy="versions: $1"
  fi
  {
    echo 'model_config_list {'
    echo '  config {'
    echo '    name: "@MODEL@"'
    echo '    base_path: "/models/@MODEL@"'
    echo '    model_platform: "tensorflow"'
    echo "    model_version_policy { specific { $policy } }"
    echo "    version_labels { key: \"stable\" value: $1 }"
    if [ -n "${2:-}" ]; then
      echo "    version_labels { key: \"canary\" value: $2 }"
    fi
    echo '  }'
    echo '}'
  } > "$config.new"
  # By rename: the server never reads half a file.
  mv -- "$config.new" "$config"
}

fail() {
  echo "canary.sh: $1" >&2
  exit 2
}

stable=$(version_of stable)
canary=$(version_of canary)

case "${1:-}" in
  status)
    echo "stable $stable"
    echo "canary ${canary:-none}"
    ;;
  try)
    case "${2:-}" in
      '' | *[!0-9]*) fail "expected a version, such as: canary.sh try 2" ;;
    esac
    [ -d "$here/models/@MODEL@/$2" ] || fail "there is no version $2 in $here/models/@MODEL@"
    [ "$2" != "$stable" ] || fail "version $2 is the stable one"
    write "$stable" "$2"
    ;;
  promote)
    [ -n "$canary" ] || fail "there is no canary"
    write "$canary"
    ;;
  rollback)
    [ -n "$canary" ] || fail "there is no canary"
    write "$stable"
    ;;
  *)
    fail "expected status, try VERSION, promote or rollback"
    ;;
esac

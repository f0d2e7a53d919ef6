# Images without a container engine: a tar of an OCI layout, made from what cargo built and a few Debian
# packages, the same layers as in the Dockerfile. Sourced, never run.

IMAGES=$RUN/images
BASE_PACKAGES=(libc6 libgcc-s1 ca-certificates tzdata)
# NAME BINARY CARGO-PACKAGE
SERVICES=(
  "operator quokka-operator quokka-operator"
  "promotions promotions promotions"
  "users users users"
  "gateway gateway gateway"
  "stays stays stays"
  "booking booking booking"
  "orders orders orders"
  "payments payments payments"
)
# The payment gateway's simulator is for the local platform alone: never in a registry, never on somebody's cluster.
if [[ -z ${CLUSTER:-}${REGISTRY:-}${PUSH:-} ]]; then SERVICES+=("toss-simulator toss-simulator toss-simulator"); fi

# oci_layer FOLDER FILE: the folder as a layer; the same content gives the same bytes.
oci_layer() {
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf "$2" .
}

digest_of() {
  sha256sum "$1" | cut -d' ' -f1
}

# oci_image NAME FILE ENTRYPOINT USER LAYER...: an image as a tar that `ctr images import` and `skopeo` read.
oci_image() {
  local name=$1 file=$2 entrypoint=$3 user=$4 layout layer digest layers='' diffs='' config manifest
  shift 4
  layout=$(mktemp -d "$IMAGES/layout.XXXXXX")
  mkdir -p "$layout/blobs/sha256"
  for layer in "$@"; do
    digest=$(digest_of "$layer")
    ln -f "$layer" "$layout/blobs/sha256/$digest" 2>/dev/null || cp "$layer" "$layout/blobs/sha256/$digest"
    diffs+=${diffs:+,}\"sha256:$digest\"
    layers+=${layers:+,}$(descriptor application/vnd.oci.image.layer.v1.tar "$layer" "$digest")
  done
  config=$layout/config
  printf '{"architecture":"%s","os":"linux","config":{"User":"%s","Entrypoint":["%s"],"WorkingDir":"/","Env":["PATH=/usr/local/bin:/usr/bin:/bin","SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(architecture)" "$user" "$entrypoint" "$diffs" >"$config"
  manifest=$layout/manifest
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$(descriptor application/vnd.oci.image.config.v1+json "$config")" "$layers" >"$manifest"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' \
    "$(descriptor application/vnd.oci.image.manifest.v1+json "$manifest" | sed "s|}\$|,\"annotations\":{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"}}|")" \
    >"$layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  mv "$config" "$layout/blobs/sha256/$(digest_of "$config")"
  mv "$manifest" "$layout/blobs/sha256/$(digest_of "$manifest")"
  tar -C "$layout" -cf "$file" oci-layout index.json blobs
  rm -rf "$layout"
}

# descriptor TYPE FILE [DIGEST]
descriptor() {
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$1" "${3:-$(digest_of "$2")}" "$(stat -c %s "$2")"
}

architecture() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
  esac
}

# base_layer: what the binaries need to run, from Debian's packages, kept in the cache.
base_layer() {
  local folder=$CACHE/base root deb
  [[ -s $folder/base.layer ]] && return
  rm -rf "$folder"
  mkdir -p "$folder/debs"
  root=$folder/root
  (cd "$folder/debs" && { apt-get download -q "${BASE_PACKAGES[@]}" ||
    { apt-get update -q && apt-get download -q "${BASE_PACKAGES[@]}"; }; }) >"$folder/apt.log" 2>&1 || {
    tail -n 20 "$folder/apt.log" >&2
    die "the base packages could not be downloaded"
  }
  mkdir -p "$root"/{etc/ssl/certs,tmp,home/nonroot,usr/local/bin}
  for deb in "$folder"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -rf "$root"/usr/share/{doc,man,locale,lintian,bug} "$root"/usr/sbin
  # What the certificate package's own script does at its installation.
  find "$root/usr/share/ca-certificates/mozilla" -name '*.crt' | sort | xargs cat >"$root/etc/ssl/certs/ca-certificates.crt"
  printf 'root:x:0:0:root:/:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin\n' \
    >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  chmod 1777 "$root/tmp"
  oci_layer "$root" "$folder/base.layer.new"
  rm -rf "$root" "$folder/debs"
  mv "$folder/base.layer.new" "$folder/base.layer"
}

# planted_in: whose bug PLANTED_BUG is.
planted_in() {
  case $PLANTED_BUG in
    skip-compensation | blind-expiry) printf orders ;;
    no-dedupe) printf booking ;;
    *) printf promotions ;;
  esac
}

# build_binaries: the services and the load generator, in one call of cargo. Which features a library is built with
# depends on who is built beside it: other selections would build many libraries a second time.
build_binaries() {
  local entry packages=(-p load) features=()
  if [[ -n ${SKIP_BUILD:-} ]]; then
    say "  binaries: those in $(binaries_folder), as SKIP_BUILD says"
    return
  fi
  for entry in "${SERVICES[@]}"; do packages+=(-p "${entry##* }"); done
  if [[ -n ${PLANTED_BUG:-} ]]; then
    say "  binaries: a TEST BUILD of $(planted_in), with the bug '$PLANTED_BUG'"
    features=(--features "$(planted_in)/planted-bugs")
  fi
  # With the libraries that the tests are built with.
  [[ $PROFILE != dev ]] || packages=(--workspace)
  say "  binaries: cargo build --profile $PROFILE"
  (cd "$REPO" && cargo build --profile "$PROFILE" --locked --bins "${packages[@]}" "${features[@]}" 9>&-)
}

app_version() {
  sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$REPO/charts/quokka/Chart.yaml"
}

# image_content BINARY: a digest of what the image is made of. It becomes an annotation of the pods, so that Kubernetes
# replaces just those whose program changed, although the tag stays the version.
image_content() {
  cat "$(binaries_folder)/$1" "$CACHE/base/base.layer" | sha256sum | cut -c1-16
}

image_name() {
  printf '%s/quokka/%s:%s' "${REGISTRY:-docker.io}" "$1" "$(app_version)"
}

# images_build: writes $IMAGES/NAME.tar and $IMAGES/NAME.content for each service whose content changed.
images_build() {
  local entry name binary content root
  mkdir -p "$IMAGES"
  base_layer
  for entry in "${SERVICES[@]}"; do
    read -r name binary _ <<<"$entry"
    content="$(image_name "$name") $(image_content "$binary")"
    [[ -s $IMAGES/$name.tar && $(cat "$IMAGES/$name.content" 2>/dev/null) == "$content" ]] && continue
    root=$(mktemp -d "$IMAGES/root.XXXXXX")
    chmod 755 "$root"
    install -D -m 755 "$(binaries_folder)/$binary" "$root/usr/local/bin/$binary"
    # Debug lines stay in cargo's folder; the image carries what runs.
    strip --strip-debug "$root/usr/local/bin/$binary"
    oci_layer "$root" "$IMAGES/$name.layer"
    oci_image "$(image_name "$name")" "$IMAGES/$name.tar" "/usr/local/bin/$binary" 65532:65532 \
      "$CACHE/base/base.layer" "$IMAGES/$name.layer"
    rm -rf "$root" "$IMAGES/$name.layer"
    printf '%s' "$content" >"$IMAGES/$name.content"
    say "  image $(image_name "$name"): $(du -h "$IMAGES/$name.tar" | cut -f1)"
  done
}

# images_import: into the cluster's containerd, only what it does not have.
images_import() {
  local entry name content have digests ref digest
  have=$(ctr_ images ls)
  # What an earlier import replaced has lost its name and is only known by its digest.
  digests=$(awk '$1 !~ /^sha256:/ {print $3}' <<<"$have")
  while read -r ref _ digest _; do
    [[ $ref != sha256:* ]] || grep -qx "$digest" <<<"$digests" || ctr_ images rm "$ref" >/dev/null
  done <<<"$have"
  for entry in "${SERVICES[@]}"; do
    read -r name _ <<<"$entry"
    content=$(<"$IMAGES/$name.content")
    [[ $(cat "$RUN/containerd/$name.imported" 2>/dev/null) == "$content" ]] && continue
    ctr_ images import "$IMAGES/$name.tar" >/dev/null
    printf '%s' "$content" >"$RUN/containerd/$name.imported"
  done
}

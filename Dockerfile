# syntax=docker/dockerfile:1
# One file for all of Quokka's images; BIN says which program, as in
#   docker build --build-arg BIN=promotions --tag quokka/promotions:0.1.0 .
# BIN is one of quokka-operator, promotions, users, gateway, stays, booking, orders, payments. `dev/quokka images` makes the same layers without Docker.

FROM rust:1.95-bookworm AS build
ARG BIN
# For the C libraries of Kafka's client and of the proxy.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The folder of compiled dependencies is kept between builds, so the program is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    case "$BIN" in \
      quokka-operator|promotions|users|gateway|stays|booking|orders|payments) ;; \
      *) echo "BIN must be quokka-operator or a service such as promotions, not '$BIN'" >&2; exit 1 ;; \
    esac \
    && cargo build --release --locked --package "$BIN" --bin "$BIN" \
    && install -D -m 755 "target/release/$BIN" "/out/usr/local/bin/$BIN" \
    && strip --strip-debug "/out/usr/local/bin/$BIN" \
    # The same entry for every program: an entry point can't name an argument of the build.
    && ln -s "$BIN" /out/usr/local/bin/entrypoint

# glibc, libgcc, certificates and time zones, the user nonroot, and nothing else: no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/local/bin/entrypoint"]

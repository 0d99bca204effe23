# Needs no frontend image: BuildKit builds it, without a registry if programs are at hand (`prebuilt`).
#
#   docker build -t quorate .                                      compiles the programs
#   docker build -t quorate --build-arg PROGRAMS=prebuilt DIR      takes those in DIR, static ones
#   docker build -t quorate-hardened --target hardened .           no root
#
# The image is laid out as etcd's: the programs in /usr/local/bin, no entry point, root, data below
# /var/lib/etcd. Whoever runs etcd's image swaps the name.
ARG PROGRAMS=build

FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin etcd --bin etcdctl --bin etcdutl \
 && mkdir -p /programs && cp target/release/etcd target/release/etcdctl target/release/etcdutl /programs/

FROM scratch AS prebuilt
COPY etcd etcdctl etcdutl /programs/

FROM ${PROGRAMS} AS programs

# Fully static programs, nothing else in the image: no shell, no libc.
FROM scratch AS etcd
COPY --from=programs /programs/ /usr/local/bin/
ENV PATH=/usr/local/bin
WORKDIR /var/etcd/
WORKDIR /var/lib/etcd/
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]

# The same without root: the data directory must be a volume that this user may write to, or the
# default one, which begins with the owner of what it covers.
FROM scratch AS hardened
COPY --from=programs /programs/ /usr/local/bin/
COPY --from=etcd --chown=65532:65532 /var/lib/etcd/ /var/lib/etcd/
USER 65532:65532
ENV PATH=/usr/local/bin ETCD_DATA_DIR=/var/lib/etcd
WORKDIR /var/lib/etcd/
VOLUME /var/lib/etcd
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]

FROM etcd

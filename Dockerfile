# Fully static programs, nothing else in the image: no shell, no libc, no root.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin etcd --bin etcdctl --bin etcdutl \
 && mkdir -p /out/data && cp target/release/etcd target/release/etcdctl target/release/etcdutl /out/

FROM scratch
COPY --from=build /out/etcd /out/etcdctl /out/etcdutl /usr/local/bin/
# A volume begins with the owner of what it covers.
COPY --from=build --chown=65532:65532 /out/data /var/lib/etcd
USER 65532:65532
ENV PATH=/usr/local/bin ETCD_DATA_DIR=/var/lib/etcd
VOLUME /var/lib/etcd
EXPOSE 2379 2380
ENTRYPOINT ["/usr/local/bin/etcd"]

module quorate/oracle/gofail

go 1.26

require go.etcd.io/gofail v0.2.0

"""moto's S3 as one application, for a server that answers one request after the other."""

from moto.server import DomainDispatcherApplication, create_backend_app

app = DomainDispatcherApplication(create_backend_app)

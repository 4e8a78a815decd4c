from hypothesis import settings

settings.register_profile("gatekit", deadline=None)  # no test asserts timing
settings.load_profile("gatekit")

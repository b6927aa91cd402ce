# Defines outrider_httplib where cpp-httplib is found: the HTTP of `outrider serve`. Debian's is a compiled library, whose
# headers must be read with the macros that it was compiled with; pkg-config knows them.
if(NOT TARGET outrider_httplib)
    find_package(PkgConfig QUIET)
    if(PKG_CONFIG_FOUND)
        pkg_check_modules(OUTRIDER_HTTPLIB QUIET IMPORTED_TARGET cpp-httplib>=0.11)
    endif()
    if(TARGET PkgConfig::OUTRIDER_HTTPLIB)
        add_library(outrider_httplib INTERFACE)
        target_link_libraries(outrider_httplib INTERFACE PkgConfig::OUTRIDER_HTTPLIB Threads::Threads)
    else()
        message(STATUS "outrider serve: left out, cpp-httplib is not there (Debian: libcpp-httplib-dev)")
    endif()
endif()

# Install and export. find_package(outrider COMPONENTS core) needs no LibTorch; COMPONENTS headers gives outrider::headers
# too and finds LibTorch on the consumer's side (OutriderTorch.cmake), but links nothing of ours; find_package(outrider)
# gives outrider::outrider as well.
include(CMakePackageConfigHelpers)
set(outrider_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/outrider)

install(TARGETS outrider_core EXPORT outrider-core FILE_SET HEADERS)
install(EXPORT outrider-core NAMESPACE outrider:: FILE outrider-core-targets.cmake
        DESTINATION ${outrider_package_dir})

if(TARGET outrider)
    install(TARGETS outrider_headers EXPORT outrider-headers FILE_SET HEADERS)
    install(EXPORT outrider-headers NAMESPACE outrider:: FILE outrider-headers-targets.cmake
            DESTINATION ${outrider_package_dir})
    install(TARGETS outrider EXPORT outrider-library FILE_SET HEADERS)
    install(EXPORT outrider-library NAMESPACE outrider:: FILE outrider-library-targets.cmake
            DESTINATION ${outrider_package_dir})
    install(FILES cmake/OutriderTorch.cmake cmake/OutriderPcre2.cmake cmake/OutriderSentencePiece.cmake
            DESTINATION ${outrider_package_dir})
endif()
if(TARGET outrider_program)
    install(TARGETS outrider_program RUNTIME)
    # Where the program looks for drafters that nobody named.
    install(DIRECTORY examples/drafters DESTINATION ${CMAKE_INSTALL_DATADIR}/outrider OPTIONAL)
endif()

configure_package_config_file(cmake/outrider-config.cmake.in ${PROJECT_BINARY_DIR}/outrider-config.cmake
                              INSTALL_DESTINATION ${outrider_package_dir} NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/outrider-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/outrider-config.cmake ${PROJECT_BINARY_DIR}/outrider-config-version.cmake
        DESTINATION ${outrider_package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

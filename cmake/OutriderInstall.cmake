# Install and export. find_package(outrider COMPONENTS core) needs no LibTorch; COMPONENTS headers gives outrider::headers
# too and finds LibTorch on the consumer's side (OutriderTorch.cmake), but links nothing of ours; find_package(outrider)
# gives outrider::outrider as well; COMPONENTS c gives outrider::c alone. Nothing that is installed names a folder of this machine, so the tree can be moved;
# LibTorch stands, or a link to one, in lib/outrider/libtorch.
include(CMakePackageConfigHelpers)
set(outrider_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/outrider)
set(outrider_libtorch_dir ${CMAKE_INSTALL_LIBDIR}/outrider/libtorch)
set(outrider_drafters_dir ${CMAKE_INSTALL_DATADIR}/outrider/drafters)
set(outrider_c_library ${CMAKE_INSTALL_LIBDIR}/liboutrider_c.so)

install(TARGETS outrider_core EXPORT outrider-core FILE_SET HEADERS)
install(EXPORT outrider-core NAMESPACE outrider:: FILE outrider-core-targets.cmake
        DESTINATION ${outrider_package_dir})

file(RELATIVE_PATH outrider_pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
set(outrider_pc_requires "Requires")
if(BUILD_SHARED_LIBS)
    set(outrider_pc_requires "Requires.private")
endif()
set(outrider_packages outrider-core)

if(TARGET outrider)
    list(APPEND outrider_packages outrider)
    install(TARGETS outrider_headers EXPORT outrider-headers FILE_SET HEADERS)
    install(EXPORT outrider-headers NAMESPACE outrider:: FILE outrider-headers-targets.cmake
            DESTINATION ${outrider_package_dir})
    install(TARGETS outrider EXPORT outrider-library FILE_SET HEADERS)
    set_target_properties(outrider PROPERTIES INSTALL_RPATH "$ORIGIN/outrider;$ORIGIN/outrider/libtorch/lib")
    install(EXPORT outrider-library NAMESPACE outrider:: FILE outrider-library-targets.cmake
            DESTINATION ${outrider_package_dir})
    # Where engines look for drafters that nobody named.
    install(DIRECTORY examples/drafters DESTINATION ${CMAKE_INSTALL_DATADIR}/outrider OPTIONAL)
    install(FILES cmake/OutriderTorch.cmake cmake/OutriderPcre2.cmake cmake/OutriderSentencePiece.cmake
                  cmake/OutriderUtf8proc.cmake
            DESTINATION ${outrider_package_dir})

    # cmake --install BUILD --component libtorch: a copy of the LibTorch that was built with, and of the CUDA runtime
    # that a wheel's libraries look for two folders above them.
    set(outrider_without)
    if(NOT OUTRIDER_CUDA)
        set(outrider_without PATTERN "*cuda*" EXCLUDE PATTERN "*nvrtc*" EXCLUDE PATTERN "*nvshmem*" EXCLUDE)
    endif()
    install(DIRECTORY ${OUTRIDER_TORCH_ROOT}/lib DESTINATION ${outrider_libtorch_dir} USE_SOURCE_PERMISSIONS
            COMPONENT libtorch EXCLUDE_FROM_ALL
            PATTERN "*python*" EXCLUDE PATTERN "libshm*" EXCLUDE ${outrider_without})
    install(DIRECTORY ${OUTRIDER_TORCH_ROOT}/include DESTINATION ${outrider_libtorch_dir}
            COMPONENT libtorch EXCLUDE_FROM_ALL)
    if(IS_DIRECTORY ${OUTRIDER_TORCH_ROOT}/../nvidia)
        install(DIRECTORY ${OUTRIDER_TORCH_ROOT}/../nvidia DESTINATION ${CMAKE_INSTALL_LIBDIR}/outrider
                USE_SOURCE_PERMISSIONS COMPONENT libtorch EXCLUDE_FROM_ALL FILES_MATCHING PATTERN "*.so*")
    endif()
endif()
if(OUTRIDER_CUDA)  # its libraries are open by the time that it is
    set_target_properties(outrider_cuda PROPERTIES INSTALL_RPATH "$ORIGIN/libtorch/lib")
    install(TARGETS outrider_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/outrider)
endif()
if(TARGET outrider_c)
    set_target_properties(outrider_c PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/outrider;$ORIGIN/outrider/libtorch/lib")
    install(TARGETS outrider_c LIBRARY FILE_SET c_header)
    list(APPEND outrider_packages outrider_c)
endif()
if(TARGET outrider_program)
    file(RELATIVE_PATH outrider_lib_from_bin /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
    set_target_properties(outrider_program PROPERTIES INSTALL_RPATH
                          "$ORIGIN/${outrider_lib_from_bin};$ORIGIN/${outrider_lib_from_bin}/outrider;$ORIGIN/${outrider_lib_from_bin}/outrider/libtorch/lib")
    install(TARGETS outrider_program RUNTIME)
endif()

configure_package_config_file(cmake/outrider-config.cmake.in ${PROJECT_BINARY_DIR}/outrider-config.cmake
                              INSTALL_DESTINATION ${outrider_package_dir} PATH_VARS outrider_libtorch_dir outrider_drafters_dir
                              outrider_c_library CMAKE_INSTALL_INCLUDEDIR
                              NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/outrider-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/outrider-config.cmake ${PROJECT_BINARY_DIR}/outrider-config-version.cmake
        DESTINATION ${outrider_package_dir})
foreach(package ${outrider_packages})
    configure_file(cmake/${package}.pc.in ${PROJECT_BINARY_DIR}/${package}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${package}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

# The pages, with what they link to.
install(FILES LICENSE README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md THIRD_PARTY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY benchmarks/results DESTINATION ${CMAKE_INSTALL_DOCDIR}/benchmarks)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN drafters EXCLUDE PATTERN quickstart.sh EXCLUDE
        PATTERN run_with_model.cmake EXCLUDE)
set(outrider_prefix "\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}")
install(CODE "set(outrider_docs \"${outrider_prefix}/${CMAKE_INSTALL_DOCDIR}\")
set(outrider_include \"${outrider_prefix}/${CMAKE_INSTALL_INCLUDEDIR}\")")
install(SCRIPT cmake/install_pages.cmake)
